"""The line between the links' reading threads and the computing thread, bounded in rows.

Room is reserved before a body is read, and given back when its attempt is answered, so that
neither many links nor slow computing make memory grow.
"""

from __future__ import annotations

import threading

from moe_worker.attempt import Attempt


class Backlog:
    """Attempts that wait, and the rows they and those being computed have."""

    def __init__(self, max_rows: int) -> None:
        self.max_rows = max_rows
        self._rows = 0
        self._waiting: list[Attempt] = []
        self._ended = False
        self._change = threading.Condition()

    @property
    def rows(self) -> int:
        """Rows that wait or are being computed, and those still being read."""
        return self._rows

    def reserve(self, rows: int) -> bool:
        """Take room for rows; False where there is too little."""
        with self._change:
            if self._rows + rows > self.max_rows:
                return False
            self._rows += rows
            return True

    def release(self, rows: int) -> None:
        """Give the room of rows back."""
        with self._change:
            self._rows -= rows

    def put(self, attempt: Attempt) -> None:
        """Hand over an attempt for which room was reserved."""
        with self._change:
            self._waiting.append(attempt)
            self._change.notify()

    def take(self, *, wait: bool) -> list[Attempt] | None:
        """Return what came since, waiting for something if asked to; None when ended."""
        with self._change:
            while wait and not self._waiting and not self._ended:
                self._change.wait()
            if self._ended:
                return None
            taken, self._waiting = self._waiting, []
            return taken

    def end(self) -> None:
        """Let `take` return None from now on."""
        with self._change:
            self._ended = True
            self._change.notify_all()
