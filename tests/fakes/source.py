"""Stands in for volumes and downloads: hands out artifacts, or the trouble it was told to make."""

from __future__ import annotations

import threading
from pathlib import Path

from moe_artifacts.artifact import ExpertArtifact, read_expert
from moe_artifacts.errors import Cancelled, Refused


class FakeSource:
    """`files` by digest; `troubles` by digest are raised one by one before that."""

    def __init__(self) -> None:
        self.files: dict[str, Path] = {}
        self.troubles: dict[str, list[Exception]] = {}
        self.fetched: list[str] = []
        self.blocked: set[str] = set()

    def fetch(self, uri: str, sha256: str, cancel: threading.Event) -> Path:
        self.fetched.append(sha256)
        if sha256 in self.blocked:
            cancel.wait(30)
            raise Cancelled("the fetch was cancelled")
        if self.troubles.get(sha256):
            raise self.troubles[sha256].pop(0)
        if sha256 not in self.files:
            raise Refused(f"{uri} cannot be read: there is none")
        return self.files[sha256]

    def read(self, path: Path) -> ExpertArtifact:
        return read_expert(path)
