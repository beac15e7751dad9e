"""Holds back what would be told too often."""

from __future__ import annotations


class Throttle:
    """Lets one event of a kind through in each period, and counts the others."""

    def __init__(self, period_s: float, capacity: int = 4096) -> None:
        self._period_s, self._capacity = period_s, capacity
        self._last: dict[object, tuple[float, int]] = {}

    def allows(self, kind: object, now_s: float) -> int | None:
        """Return how many of this kind were held back before this one; None holds it back too."""
        told_s, held = self._last.get(kind, (float("-inf"), 0))
        if now_s - told_s < self._period_s:
            self._last[kind] = (told_s, held + 1)
            return None
        if len(self._last) >= self._capacity:
            self._last.clear()
        self._last[kind] = (now_s, 0)
        return held
