"""Copies on disk of the last table and the last list of workers, for a start without API server.

Written whole or not at all. A copy that cannot be read or written is said and otherwise ignored.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

from moe_core.log import tell


class Copies:
    """The copies of one mixture in one directory. Times are seconds since the epoch of Unix."""

    def __init__(self, directory: Path, mixture: str) -> None:
        self._table = directory / f"{mixture}.table.json"
        self._workers = directory / f"{mixture}.workers.json"

    def save_table(self, body: dict[str, Any], wall_s: float) -> None:
        _save(self._table, {"savedAt": wall_s, "object": body})

    def table(self, wall_s: float) -> tuple[dict[str, Any], float] | None:
        """Return the object and its age in seconds."""
        saved = _load(self._table)
        if not isinstance(saved, dict) or not isinstance(saved.get("object"), dict):
            return None
        return saved["object"], max(0.0, wall_s - float(saved.get("savedAt", 0)))

    def save_workers(self, addresses: Collection[str]) -> None:
        _save(self._workers, sorted(addresses))

    def workers(self) -> tuple[str, ...]:
        saved = _load(self._workers)
        if not isinstance(saved, list):
            return ()
        return tuple(address for address in saved if isinstance(address, str))


def _save(path: Path, content: object) -> None:
    part = path.with_suffix(f".{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(content))
        part.replace(path)
    except OSError as error:
        tell("copy_not_written", file=path, reason=error)


def _load(path: Path) -> object:
    try:
        content: object = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        tell("copy_not_read", file=path, reason=error)
        return None
    return content
