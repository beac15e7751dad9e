"""Which mixtures are to be looked at, each at most once at a time, and when to look again.

A key that is added while it is being worked on is worked on once more afterwards. Times are those
of a clock that is passed in; nothing here knows what a key means.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from moe_core.metrics import Histogram

K = TypeVar("K")

_FIRST_RETRY_S: Final = 0.1
_LONGEST_RETRY_S: Final = 30.0
# Of controller-runtime's histograms of queues, in seconds.
_BOUNDS_S: Final = (1e-3, 1e-2, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class Deadlines(Generic[K]):
    """A heap of times, one for each key."""

    def __init__(self) -> None:
        self._at: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._count = 0

    def set(self, key: K, at: float) -> None:
        """Let a key be due at a time, instead of at any other."""
        self._at[key] = at
        self._count += 1
        heapq.heappush(self._heap, (at, self._count, key))

    def clear(self, key: K) -> None:
        self._at.pop(key, None)

    def next(self) -> float | None:
        """Return when the first key is due; None where there is none."""
        while self._heap and self._at.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def due(self, now: float) -> list[K]:
        """Take out the keys that are due."""
        keys = []
        while (at := self.next()) is not None and at <= now:
            key = heapq.heappop(self._heap)[2]
            del self._at[key]
            keys.append(key)
        return keys


@dataclass(slots=True)
class _Wait:
    """Since when a key waits, and why."""

    since: float
    reasons: set[Hashable] = field(default_factory=set)


@dataclass(slots=True)
class WorkQueue(Generic[K]):
    """Keys in the order in which they were added; workers `take` one and say `done`.

    Counted are what was added, tried again, how long it waited, and was worked on.
    """

    clock: Callable[[], float]
    adds: int = 0
    retries: int = 0
    waited: Histogram = field(default_factory=lambda: Histogram(_BOUNDS_S))
    worked: Histogram = field(default_factory=lambda: Histogram(_BOUNDS_S))
    _waiting: OrderedDict[K, _Wait] = field(default_factory=OrderedDict)
    _working: dict[K, float] = field(default_factory=dict)  # and since when
    _failures: dict[K, int] = field(default_factory=dict)
    _deadlines: Deadlines[K] = field(default_factory=Deadlines)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, key: K, why: Hashable = None) -> None:
        """Let a key be worked on as soon as a worker is free; `why` is for `expected`."""
        self._wait_for(key, why)
        self._changed.set()

    def expected(self, key: K, why: Hashable) -> None:
        """Say that a reason was none: it was the work's own doing, seen before it was known."""
        wait = self._waiting.get(key)
        if wait is not None and why in wait.reasons:
            wait.reasons.discard(why)
            if not wait.reasons:
                del self._waiting[key]

    @property
    def depth(self) -> int:
        """How many keys wait for a worker."""
        return len(self._waiting)

    @property
    def active(self) -> int:
        """How many are being worked on."""
        return len(self._working)

    async def take(self) -> K:
        """Wait for a key that nobody works on, and work on it until `done` or `failed`."""
        while (key := self.poll()) is None:
            await self._wait()
        return key

    def poll(self) -> K | None:
        """Take a key that can be worked on now; None where there is none."""
        for due in self._deadlines.due(self.clock()):
            self._wait_for(due, None)
        key = next((k for k in self._waiting if k not in self._working), None)
        if key is not None:
            now = self.clock()
            self.waited.observe(now - self._waiting.pop(key).since)
            self._working[key] = now
        return key

    def next_deadline(self) -> float | None:
        """Return when the first key is due that nothing else asks for; None where there is none."""
        return self._deadlines.next()

    def _wait_for(self, key: K, why: Hashable) -> None:
        wait = self._waiting.get(key)
        if wait is None:
            self.adds += 1
            wait = self._waiting[key] = _Wait(self.clock())
        wait.reasons.add(why)

    async def _wait(self) -> None:
        self._changed.clear()
        at = self.next_deadline()
        try:
            async with asyncio.timeout(None if at is None else max(0.0, at - self.clock())):
                await self._changed.wait()
        except TimeoutError:
            pass

    def done(self, key: K, again_in_s: float | None) -> None:
        """Say that the work succeeded, and when the key is due without a further `add`."""
        self._failures.pop(key, None)
        self._finish(key, again_in_s)

    def failed(self, key: K, at_least_s: float = 0.0) -> float:
        """Say that the work failed. Returns after how many seconds it is tried again."""
        count = self._failures.get(key, 0)
        self._failures[key] = count + 1
        self.retries += 1
        delay_s = max(at_least_s, min(_LONGEST_RETRY_S, _FIRST_RETRY_S * 2.0 ** min(count, 16)))
        self._finish(key, delay_s)
        return delay_s

    def _finish(self, key: K, again_in_s: float | None) -> None:
        began = self._working.pop(key, None)
        if began is not None:
            self.worked.observe(self.clock() - began)
        if again_in_s is None:
            self._deadlines.clear(key)
        else:
            self._deadlines.set(key, self.clock() + again_in_s)
        self._changed.set()
