"""Keeps what was read lately, so that what came in a window of time is known from its ends."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from kubectl_moe.follow import Clock

LOOK_S: Final = 1.0
WATCHED_S: Final = 10.0
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Taken(Generic[T]):
    """What was read at one moment of the clock."""

    at: float
    what: T


@dataclass(slots=True)
class Rolling(Generic[T]):
    """Reads again and again; `take` reads once."""

    take: Callable[[], T]
    clock: Clock
    _read: deque[Taken[T]] = field(default_factory=deque)

    def once(self, window_s: float | None) -> Sequence[Taken[T]]:
        """Return what is read now, after what was read a window before where there is one."""
        if window_s is not None:
            self._look()
            self.clock.sleep(window_s)
        self._look()
        return tuple(self._read)

    def lately(self, window_s: float) -> Sequence[Taken[T]]:
        """Return all that was read in the last window, or since the first look if that is later."""
        if not self._read:
            self._look()
            self.clock.sleep(LOOK_S)
        now = self.clock.now()
        while len(self._read) > 1 and now - self._read[1].at >= window_s:
            self._read.popleft()
        self._look()
        return tuple(self._read)

    def _look(self) -> None:
        what = self.take()
        self._read.append(Taken(self.clock.now(), what))
