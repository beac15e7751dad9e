"""Has the workers compute a request: as one exchange, or where it has many rows, slice by slice.

It knows how many are under way at once, and nothing of what is asked of whom.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from moe_core.tracing import Span
from moe_router import slices
from moe_router.counters import Counters
from moe_router.exchange import Exchange, Tally
from moe_router.flight import Flight, Links, Step
from moe_router.message import Outlook
from moe_router.request import Request
from moe_router.slices import Served, Slice, cut, join
from moe_router.spans import Attempts
from moe_router.view import View

# Enough that workers always have the next one; a slice waits there behind those before it.
SLICES_AT_ONCE = 4


class Dispatcher:
    """Everything happens on one event loop."""

    def __init__(
        self,
        links: Links,
        counters: Counters,
        outlook: Callable[[View], Outlook],
        clock: Callable[[], float],
    ) -> None:
        self._links, self._counters = links, counters
        self._outlook, self._clock = outlook, clock
        self._turns = itertools.count()

    async def serve(
        self, request: Request, view: View, span: Span | None, deadline_s: float
    ) -> Callable[[], Served]:
        """Have all rows answered; the answers are put together on call. Raises Refused."""
        if span is None:
            return await self._serve(request, view, deadline_s, self._links, self._counters)
        with Attempts(span, view, self._links, self._counters, self._clock) as attempts:
            return await self._serve(request, view, deadline_s, attempts, attempts)

    async def _serve(
        self, request: Request, view: View, deadline_s: float, links: Links, tally: Tally
    ) -> Callable[[], Served]:
        def exchange_of(part: Request) -> Exchange:
            pins = [s.pins.force(s.forced) for s in part.rows.sequences]
            return Exchange(part, view, pins, deadline_s, next(self._turns))

        async def fly(exchange: Exchange, first: Step) -> None:
            colds = self._counters.colds
            await Flight(exchange, links, lambda: self._outlook(view), tally, colds).finish(first)

        if len(request.rows.hidden) <= slices.SLICE_ROWS:
            exchange = exchange_of(request)
            await fly(exchange, exchange.begin)
            return lambda: _served(exchange)
        flown: list[tuple[Slice, Exchange]] = []
        served: dict[int, Served] = {}  # by the slice's first row
        left = cut(request)

        async def work(number: int) -> None:
            await _step_back(number)
            for one in left:
                exchange = exchange_of(one.request)
                await fly(exchange, exchange.begin)
                await _step_back()
                flown.append((one, exchange))
                served[one.first] = _served(exchange)
                await _step_back()

        await _together(work(number) for number in range(SLICES_AT_ONCE))
        # What was revoked since a slice was answered may be in no answer: stable is asked instead.
        while anew := self._taken_back(flown, view):
            for one, exchange in anew:
                await fly(exchange, exchange.resume)
                served[one.first] = _served(exchange)
        return lambda: join(request, [(one, served[one.first]) for one, _ in flown])

    def _taken_back(
        self, flown: Iterable[tuple[Slice, Exchange]], view: View
    ) -> list[tuple[Slice, Exchange]]:
        """Return the slices that hold answers of a version that the newest table revokes."""
        newest = self._outlook(view).newest
        return [(one, exchange) for one, exchange in flown if exchange.outdated(newest)]


def _served(exchange: Exchange) -> Served:
    return Served(*exchange.answer(), exchange.used)


async def _step_back(times: int = 1) -> None:
    """Let others come first: between two long pieces of work."""
    for _ in range(times):
        await asyncio.sleep(0)


async def _together(works: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run all to their end; the first that fails ends the others."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
