"""Decides who begins next where requests wait: start-time fair queueing, with a cost in rows.

After Goyal, Vin and Cheng 1996 (SIGCOMM), with shares in proportion to weights; as there, a flow's
share is shared out in the same way within it. A request of a flow that has got less than its share
is passed by at most one request of each other flow, however many of those wait. Pure, and without a
clock: virtual time is the start of what began last.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

_PRUNED_AT = 2_048


@dataclass(frozen=True, slots=True, eq=False)
class Waiting:
    """A request that waits: of a tenant or a stream (`flow`), and there of a session."""

    flow: str
    session: str
    rows: int


class Line(Protocol):
    """Those who wait within a flow; false where nobody does."""

    def append(self, one: Waiting, /) -> None: ...
    def remove(self, one: Waiting, /) -> None: ...
    def popleft(self) -> Waiting: ...


@dataclass(slots=True)
class _Flow:
    """Those of one flow that wait, and the virtual time at which the next of them starts."""

    start: float
    line: Line


class FairQueue:
    """Requests that wait, by the flow that `key` says. A flow without a weight has 1.

    `line` makes what orders those within a flow: who comes first, or another such queue.
    """

    def __init__(
        self,
        key: Callable[[Waiting], str],
        weights: Mapping[str, int],
        line: Callable[[], Line] = deque[Waiting],
    ) -> None:
        self._key, self._weights, self._line = key, weights, line
        self._now = 0.0
        self._finished: dict[str, float] = {}
        self._flows: dict[str, _Flow] = {}
        self._heads: list[tuple[float, int, str]] = []
        self._joined = 0

    def __bool__(self) -> bool:
        return bool(self._flows)

    def append(self, one: Waiting, /) -> None:
        """Have a request wait."""
        flow = self._key(one)
        mine = self._flows.get(flow)
        if mine is None:
            start = max(self._now, self._finished.get(flow, 0.0))
            mine = self._flows[flow] = _Flow(start, self._line())
            self._offer(flow, start)
        mine.line.append(one)

    def remove(self, one: Waiting, /) -> None:
        """Take a request out that waits no more; it has cost its flow nothing."""
        flow = self._key(one)
        mine = self._flows[flow]
        mine.line.remove(one)
        if not mine.line:
            del self._flows[flow]
            self._rest()

    def popleft(self) -> Waiting:
        """Take out the one that is to begin. Raises IndexError where nobody waits."""
        while True:
            start, _, flow = heapq.heappop(self._heads)
            mine = self._flows.get(flow)
            if mine is not None and mine.start == start:
                return self._started(flow, mine)

    def _started(self, flow: str, mine: _Flow) -> Waiting:
        one = mine.line.popleft()
        self._now = mine.start
        mine.start += max(one.rows, 1) / self._weights.get(flow, 1)
        self._finished[flow] = mine.start
        if mine.line:
            self._offer(flow, mine.start)
        else:
            del self._flows[flow]
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


def by_tenant_and_session(weights: Mapping[str, int]) -> FairQueue:
    """Return a queue that is fair between tenants by weight, and within each among its sessions."""
    return FairQueue(lambda one: one.flow, weights, lambda: FairQueue(lambda one: one.session, {}))
