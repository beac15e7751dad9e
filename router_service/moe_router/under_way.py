"""The messages that a link has sent and that are not answered yet, each under a number.

Pure; numbers are of one link, and never used again: an answer to what was given up finds nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from moe_router.flight import Waiter
from moe_router.message import Message, replaceable
from moe_router.replica import Routable


@dataclass(slots=True)
class Attempt:
    """A message under way."""

    message: Message
    waiter: Waiter
    expires_s: float
    late_s: float  # from when on another worker may be asked as well


class UnderWay:
    """What was sent. `rows` are those of all that wait."""

    def __init__(self) -> None:
        self._attempts: dict[int, Attempt] = {}
        self._last = 0
        self.rows = 0

    def __len__(self) -> int:
        return len(self._attempts)

    def add(self, message: Message, waiter: Waiter, patience_s: float | None) -> int:
        """Return the number of a message that is about to be sent."""
        self._last += 1
        expires_s = message.sent_s + message.timeout_s
        late_s = expires_s if patience_s is None else message.sent_s + patience_s
        self._attempts[self._last] = Attempt(message, waiter, expires_s, late_s)
        self.rows += len(message.rows)
        return self._last

    def take(self, number: int) -> Attempt | None:
        """Return what has this number, which is over now."""
        attempt = self._attempts.pop(number, None)
        if attempt is not None:
            self.rows -= len(attempt.message.rows)
        return attempt

    def take_all(self) -> list[Attempt]:
        """Return everything, which is over now."""
        attempts = list(self._attempts.values())
        self._attempts, self.rows = {}, 0
        return attempts

    def expired(self, now_s: float) -> list[tuple[int, Attempt]]:
        """Return those whose time is over."""
        return [(number, a) for number, a in self._attempts.items() if a.expires_s <= now_s]

    def late(self, now_s: float) -> list[Attempt]:
        """Return those that take longer than this worker's nearly always do."""
        return [attempt for attempt in self._attempts.values() if attempt.late_s <= now_s]

    def replaceable(self, routable: Routable) -> list[int]:
        """Return those that others could take just as well."""
        return [n for n, a in self._attempts.items() if replaceable(a.message, routable)]

    def sent_by(self, then_s: float) -> int:
        """Return how many were sent by then."""
        return sum(a.message.sent_s <= then_s for a in self._attempts.values())
