"""When to give up: a deadline and a wish to cancel, as one thing to look at between two pieces."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Self

from moe_artifacts.errors import Cancelled, Unavailable


@dataclass(frozen=True, slots=True)
class Stop:
    """Look at it often: `check` raises as soon as the work must end."""

    cancel: threading.Event = field(default_factory=threading.Event)
    deadline: float | None = None  # of time.monotonic

    @classmethod
    def after(cls, seconds: float | None, cancel: threading.Event | None) -> Self:
        deadline = None if seconds is None else time.monotonic() + seconds
        return cls(cancel or threading.Event(), deadline)

    def check(self) -> None:
        """Raise Cancelled, or Unavailable past the deadline."""
        if self.cancel.is_set():
            raise Cancelled("the fetch was cancelled")
        if self.deadline is not None and time.monotonic() >= self.deadline:
            raise Unavailable("the fetch ran out of time; what has come so far is kept")

    def at_most(self, seconds: float) -> float:
        """Return `seconds`, or what is left until the deadline if that is less; never 0."""
        if self.deadline is None:
            return seconds
        return max(min(seconds, self.deadline - time.monotonic()), 0.001)

    def sleep(self, seconds: float) -> None:
        """Wait that long, or until there is a reason to stop; then `check`."""
        self.cancel.wait(self.at_most(seconds))
        self.check()
