"""Lets so many rows be at work at once; who comes then waits for a turn, in a fair order.

What nobody has to wait for passes without a word to the queue. A request counts as a quarter of
the window at most, so that a giant leaves room for others beside it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from moe_router.fair import Waiting, by_tenant_and_session
from moe_router.refusal import Code, Refused

RETRY_AFTER_MS = 50


class Window:
    """The rows at work. Used from one event loop only."""

    def __init__(self, rows: int, weights: Mapping[str, int], clock: Callable[[], float]) -> None:
        self._limit, self._clock = rows, clock
        self._largest = max(rows // 4, 1)
        self._at_work = 0
        self._queue = by_tenant_and_session(weights)
        self._turns: dict[Waiting, asyncio.Future[None]] = {}

    @property
    def waiting(self) -> int:
        """Requests that wait."""
        return len(self._turns)

    @asynccontextmanager
    async def turn(
        self, flow: str, session: str, rows: int, within_s: float
    ) -> AsyncIterator[float]:
        """Be at work in the block; gives the seconds that were waited for it. Raises Refused."""
        size = min(rows, self._largest)
        waited_s = 0.0
        if self._queue or self._at_work >= self._limit:
            waited_s = await self._wait(Waiting(flow, session, rows), within_s)
        else:
            self._at_work += size
        try:
            yield waited_s
        finally:
            self._at_work -= size
            self._fill()

    async def _wait(self, one: Waiting, within_s: float) -> float:
        began_s = self._clock()
        self._queue.append(one)
        self._turns[one] = turn = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(within_s):
                await turn
        except BaseException as error:
            if self._turns.pop(one, None) is not None:
                self._queue.remove(one)
            elif not turn.cancelled():  # its turn came as it gave up
                self._at_work -= min(one.rows, self._largest)
                self._fill()
            if isinstance(error, TimeoutError):
                text = f"{one.rows} rows waited {within_s:g} s for those of others"
                text = f"{text}, and no longer may"
                raise Refused(Code.RESOURCE_EXHAUSTED, text, RETRY_AFTER_MS) from None
            raise
        return self._clock() - began_s

    def _fill(self) -> None:
        """Have those begin that there is room for."""
        while self._at_work < self._limit and self._queue:
            one = self._queue.popleft()
            turn = self._turns.pop(one)
            if not turn.cancelled():
                self._at_work += min(one.rows, self._largest)
                turn.set_result(None)
