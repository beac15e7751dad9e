"""Decides who begins next where requests wait: start-time fair queueing, with a cost in rows.

After Goyal, Vin and Cheng 1996 (SIGCOMM), with shares in proportion to weights. A request of a flow
that has got less than its share is passed by at most one request of each other flow, however many
of those wait. Pure, and without a clock: virtual time is the start of what began last.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

_PRUNED_AT = 2_048


@dataclass(slots=True, eq=False)
class Waiting:
    """A request that waits."""

    flow: str
    rows: int


@dataclass(slots=True)
class _Flow:
    """Those of one flow that wait, and the virtual time at which the first of them starts."""

    start: float
    waiting: deque[Waiting] = field(default_factory=deque)


class FairQueue:
    """Requests that wait, by flow. A flow without a weight has 1."""

    def __init__(self, weights: Mapping[str, int]) -> None:
        self._weights = weights
        self._now = 0.0
        self._finished: dict[str, float] = {}
        self._flows: dict[str, _Flow] = {}
        self._heads: list[tuple[float, int, str]] = []
        self._joined = 0

    def __bool__(self) -> bool:
        return bool(self._flows)

    def join(self, flow: str, rows: int) -> Waiting:
        """Have a request wait behind those of its flow."""
        one = Waiting(flow, max(rows, 1))
        mine = self._flows.get(flow)
        if mine is None:
            mine = self._flows[flow] = _Flow(max(self._now, self._finished.get(flow, 0.0)))
            self._offer(flow, mine.start)
        mine.waiting.append(one)
        return one

    def leave(self, one: Waiting) -> None:
        """Take a request out that waits no more; it has cost its flow nothing."""
        mine = self._flows[one.flow]
        mine.waiting.remove(one)
        if not mine.waiting:
            del self._flows[one.flow]
            self._rest()

    def begin(self) -> Waiting | None:
        """Take out the one that is to begin; None where nobody waits."""
        while self._heads:
            start, _, flow = heapq.heappop(self._heads)
            mine = self._flows.get(flow)
            if mine is not None and mine.start == start:
                return self._started(mine)
        return None

    def _started(self, mine: _Flow) -> Waiting:
        one = mine.waiting.popleft()
        self._now = mine.start
        mine.start += one.rows / self._weights.get(one.flow, 1)
        self._finished[one.flow] = mine.start
        if mine.waiting:
            self._offer(one.flow, mine.start)
        else:
            del self._flows[one.flow]
            self._rest()
        return one

    def _offer(self, flow: str, start: float) -> None:
        self._joined += 1
        heapq.heappush(self._heads, (start, self._joined, flow))

    def _rest(self) -> None:
        """Forget what matters no more: all of it where nobody waits, flows that are behind."""
        if not self._flows:
            self._now = 0.0
            self._finished.clear()
            self._heads.clear()
        elif len(self._finished) > _PRUNED_AT:
            ahead = {f: at for f, at in self._finished.items() if at > self._now}
            self._finished = ahead
