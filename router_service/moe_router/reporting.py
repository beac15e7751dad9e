"""Takes in a message of outcomes: each counts, or is refused, by itself.

One client's sessions share a message, and one of them that is lost (its table is gone, its sums
make no sense) must not cost the others their say. A message is refused whole only where that is
about the message: too many sessions, another mixture, no table yet.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Final, TypeVar

from moe_router.marks import Marks
from moe_router.outcomes import Outcomes, Report, parse_reports
from moe_router.refusal import Refused
from moe_router.request import check_mixture
from moe_router.sessions import check_start
from moe_router.tables import Tables, served
from moe_router.view import View
from moeops.v1.router_pb2 import ReportOutcomeRequest

T = TypeVar("T")

REPORTS_AT_ONCE: Final = 32  # about a millisecond


@dataclass(frozen=True, slots=True)
class Reported:
    """How many outcomes are new evidence, and which were refused: index and why."""

    accepted: int
    refused: tuple[tuple[int, Refused], ...]


async def take_in(
    message: ReportOutcomeRequest, tables: Tables, outcomes: Outcomes, marks: Marks, wait_s: float
) -> Reported:
    """Take what clients found answers worth.

    Waits once, at most `wait_s`, where sessions began in an epoch that is not here yet. Raises
    Refused for a message of which nothing can be taken.
    """
    read = [one async for one in _paced(parse_reports(message))]
    await _reach([one for one in read if isinstance(one, Report)], tables, wait_s)
    view = served(tables)
    check_mixture(message.mixture, view)
    accepted, refused = 0, []
    async for index, one in _paced(enumerate(read)):
        try:
            accepted += _take(one, tables.view or view, outcomes, marks)
        except Refused as why:
            refused.append((index, why))
    return Reported(accepted, tuple(refused))


def _take(one: Report | Refused, view: View, outcomes: Outcomes, marks: Marks) -> bool:
    """Return whether it is new evidence. Raises Refused."""
    if isinstance(one, Refused):
        raise one
    check_start(one.start, view)
    return outcomes.take(one, view, degraded=marks.degraded(one.session))


async def _reach(reports: Iterable[Report], tables: Tables, wait_s: float) -> None:
    """Wait for the table that the latest session of the mixture began with."""
    view = tables.view
    starts = [r.start for r in reports if view is None or r.start.uid == view.table.uid]
    if starts:
        await tables.reach(max(starts, key=lambda start: start.epoch), wait_s)


async def _paced(items: Iterable[T]) -> AsyncIterator[T]:
    """Give items a few at a time, so that a long list delays no request."""
    for number, item in enumerate(items, 1):
        yield item
        if number % REPORTS_AT_ONCE == 0:
            await asyncio.sleep(0)
