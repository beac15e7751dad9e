"""Bounds the rows that are under way at once, and whom to shed: who has the most, not who is last.

Dynamic thresholds (Choudhury and Hahne 1998): a session that has rows under way may have as many as
are still free, and no more. So one alone may take half of all, N that want all get 1/(N + 1) each,
and there is always room for one that comes anew, whose first request needs only to fit. Pure, and
without a clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from moe_router.refusal import Code, Refused

RETRY_AFTER_MS = 50
Held = list[tuple[str, int]]


class Room:
    """The rows under way, by session."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._rows = 0
        self._by_session: dict[str, int] = {}

    @property
    def rows(self) -> int:
        return self._rows

    @contextmanager
    def hold(self, wanted: Iterable[tuple[str, int]]) -> Iterator[None]:
        """Have room for rows by session in the block. Raises Refused."""
        held = self.take(wanted)
        try:
            yield
        finally:
            self.give_back(held)

    def take(self, wanted: Iterable[tuple[str, int]]) -> Held:
        """Take room for rows by session, to be given back; all of it or, raising Refused, none."""
        held = list(wanted)
        count = sum(rows for _, rows in held)
        free = self._limit - self._rows
        if count > self._limit:
            text = f"sequences have {count} rows; a request may have at most {self._limit}"
            raise Refused(Code.INVALID_ARGUMENT, text)
        if count > free:
            text = f"{self._rows} rows are under way here and at most {self._limit} may be"
            raise Refused(Code.RESOURCE_EXHAUSTED, f"{text}; try again", RETRY_AFTER_MS)
        for session, rows in held:
            own = self._by_session.get(session, 0)
            if own and own + rows > free:
                text = f"session {session!r} has {own} rows under way and {free} are free"
                text = f"{text}; a session may have no more than are free; try again"
                raise Refused(Code.RESOURCE_EXHAUSTED, text, RETRY_AFTER_MS)
        for session, rows in held:
            self._by_session[session] = self._by_session.get(session, 0) + rows
        self._rows += count
        return held

    def give_back(self, held: Held) -> None:
        """Give back what was taken."""
        for session, rows in held:
            left = self._by_session[session] - rows
            if left:
                self._by_session[session] = left
            else:
                del self._by_session[session]
            self._rows -= rows
