"""Remembers how the stable version of each attended expert did lately, for `health` to judge."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from moe_operator.health import Attended, History, Sums, remember
from moe_operator.increments import Increments
from moe_operator.memories import Memories
from moe_operator.router_report import Counters, RouterReport


def _minus(now: Sums, before: Sums) -> Sums:
    return now.plus(before, -1)


@dataclass(slots=True)
class _Expert:
    """One attended version."""

    of: Attended
    history: History = field(init=False)
    _increments: Increments[Sums] = field(default_factory=lambda: Increments(_minus))

    def __post_init__(self) -> None:
        self.history = History(norm=self.of.known_norm)

    def hear(self, reports: Iterable[RouterReport], now: datetime) -> bool:
        """Take in what routers said; return whether an alarm came or went, or a window is whole."""
        if self._increments.lapsed(now):
            self.history = History(norm=self.history.norm)
        before, came = self.history, Sums()
        said = ((report, _sums(report.attended.get(self.of.sha256))) for report in reports)
        for one in self._increments.came(said):
            came = came.plus(one)
        if came.attempts:
            self.history = remember(before, came, self.of)
        after = self.history
        moved = after.alarms.keys() != before.alarms.keys()
        return moved or (after.whole_window, after.norm) != (before.whole_window, before.norm)


def _sums(counted: Counters | None) -> Sums | None:
    if counted is None:
        return None
    return Sums(counted.requests, counted.errors, counted.rows, counted.norm_sum)


class Checkups(Memories[Attended, History]):
    """What is remembered of the experts of every mixture."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(_Expert)
