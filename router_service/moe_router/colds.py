"""What a router knows of versions that rows came for and nobody holds: how many rows wait, since
when, and how long it took until somebody held them the last time.

Bounded: rows that wait have their place among those under way, and only some of those may wait.
No clock: times come with what is told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from enum import StrEnum
from typing import Final

from moe_core.metrics import Histogram
from moe_router.cold import Version, Waking
from moe_router.latency import LATENCY_BOUNDS_S
from moe_router.refusal import Code, Refused

MAX_KNOWN: Final = 4096
FIRST_RETRY_MS: Final = 100
LONGEST_RETRY_MS: Final = 5000


class End(StrEnum):
    """What became of rows that waited."""

    SERVED = "Served"  # the expert came
    CLIMBED = "Climbed"  # it did not, in time: the ladder's next rung
    REFUSED = "Refused"  # too many waited already
    ABANDONED = "Abandoned"  # the request ended meanwhile


class Colds:
    """Of one router; `limit` is how many rows may wait at once."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.rows = 0
        self.wakings: dict[Version, Waking] = {}
        self.waits = Histogram(LATENCY_BOUNDS_S)
        self.ends: Counter[End] = Counter()
        self._took: dict[Version, float] = {}
        self._bells: set[Callable[[], None]] = set()

    def lack(self, version: Version, now_s: float) -> None:
        """Take note that rows came for a version that nobody holds."""
        if version not in self.wakings and len(self.wakings) < MAX_KNOWN:
            self.wakings[version] = Waking(now_s, self._took.get(version))

    def enter(self, version: Version, rows: int, now_s: float) -> Refused | None:
        """Have rows wait, or say why they may not."""
        if self.rows + rows <= self.limit:
            self.rows += rows
            return None
        self.ends[End.REFUSED] += rows
        text = f"{self.rows} rows wait here for experts that sleep, and at most {self.limit} may"
        text = f"{text}; {rows} more are for expert {version[0]!r}; try again"
        return Refused(Code.RESOURCE_EXHAUSTED, text, self._retry_ms(version, now_s))

    def leave(self, rows: int, end: End, waited_s: float) -> None:
        self.rows -= rows
        self.ends[end] += rows
        self.waits.observe(waited_s)

    def _retry_ms(self, version: Version, now_s: float) -> int:
        """Return when it is worth to try again: when the version should be there."""
        known = self.wakings.get(version)
        if known is None or known.took_s is None:
            return 10 * FIRST_RETRY_MS
        left_ms = int(1000 * (known.since_s + known.took_s - now_s))
        return min(max(left_ms, FIRST_RETRY_MS), LONGEST_RETRY_MS)

    def listen(self, bell: Callable[[], None]) -> None:
        """Have somebody called when workers or the table change."""
        self._bells.add(bell)

    def forget(self, bell: Callable[[], None]) -> None:
        self._bells.discard(bell)

    def changed(self, held: Collection[str], now_s: float) -> None:
        """Take note of which versions, by sha256, somebody holds now, and call those who wait."""
        for version, waking in list(self.wakings.items()):
            if version[1] in held:
                del self.wakings[version]
                if len(self._took) < MAX_KNOWN or version in self._took:
                    self._took[version] = now_s - waking.since_s
        for bell in tuple(self._bells):
            bell()
