"""Tells a person at the terminal how far a long task is, and nothing of a short one."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TextIO

_QUIET_S = 2.0


@dataclass(slots=True)
class Meter:
    """Counts bytes; writes a line when two seconds have passed, and every two from then on."""

    what: str
    total: int
    out: TextIO
    clock: Callable[[], float] = time.monotonic
    done: int = 0
    _began: float = field(init=False)
    _told: float = field(init=False)

    def __post_init__(self) -> None:
        self._began = self._told = self.clock()

    def add(self, count: int) -> None:
        """Count `count` more bytes, and say so if it is time."""
        self.done += count
        now = self.clock()
        if now - self._told < _QUIET_S:
            return
        self._told = now
        percent = 100 * self.done // self.total if self.total else 100
        elapsed = f"{now - self._began:.0f} s"
        line = f"{self.what}: {percent} % of {human_bytes(self.total)}, {elapsed}"
        print(line, file=self.out, flush=True)


def human_bytes(count: int) -> str:
    """Return a count of bytes for people: 812 B, 3.1 MB, 9.8 GB."""
    if count < 1000:
        return f"{count} B"
    size = float(count)
    for unit in ("kB", "MB", "GB"):
        size /= 1000
        if size < 1000:
            return f"{size:.1f} {unit}"
    return f"{size / 1000:.1f} TB"
