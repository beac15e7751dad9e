"""Remembers how the routing of each watched gate was lately, for `drift` to judge."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from moe_operator.drift import History, Tallies, Watched, plus, remember, since
from moe_operator.increments import Increments
from moe_operator.memories import Memories
from moe_operator.router_report import RouterReport


@dataclass(slots=True)
class _Gate:
    """One watched gate."""

    of: Watched
    history: History = field(default_factory=History)
    _increments: Increments[Tallies] = field(default_factory=lambda: Increments(since))

    def hear(self, reports: Iterable[RouterReport], now: datetime) -> bool:
        """Take in what routers said; return whether an alarm came or went, or a window is whole."""
        if self._increments.lapsed(now):
            self.history = History()
        before, came = self.history, self._came(reports)
        if any(tally.rows for tally in came.values()):
            self.history = remember(before, came, self.of)
        after = self.history
        moved = after.alarms.keys() != before.alarms.keys()
        return moved or after.whole_window != before.whole_window

    def _came(self, reports: Iterable[RouterReport]) -> Tallies:
        found: Tallies = {}
        said = ((report, report.tallies.get(self.of.sha256)) for report in reports)
        for came in self._increments.came(said):
            found = plus(found, came)
        return found


class Drifts(Memories[Watched, History]):
    """What is remembered of the gates of every mixture."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(_Gate)
