"""Where artifacts come from, as the loader sees it: a seam of two calls."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from moe_artifacts.artifact import ExpertArtifact, read_expert
from moe_artifacts.fetch import Limits, fetch

_LIMITS = Limits(attempts=2)  # the loader tries again by itself, after the others had their turn


class Source(Protocol):
    """Both raise what `moe_artifacts.errors` has: Unavailable is worth another try."""

    def fetch(self, uri: str, sha256: str, cancel: threading.Event) -> Path:
        """Return a file that has this digest."""
        ...

    def read(self, path: Path) -> ExpertArtifact:
        """Read and check the artifact."""
        ...


@dataclass(frozen=True, slots=True)
class Artifacts:
    """Mounted volumes and downloads kept in `cache`."""

    cache: Path

    def fetch(self, uri: str, sha256: str, cancel: threading.Event) -> Path:
        return fetch(uri, sha256, self.cache, limits=_LIMITS, cancel=cancel)

    def read(self, path: Path) -> ExpertArtifact:
        return read_expert(path)
