"""Remembers what the routing of each watched gate was lately, and tells when that is news.

Between looks it takes in what routers said, and has a mixture looked at only where an alarm came or
went, or a first whole window is seen. All this is memory only: an operator that starts anew knows
nothing until it has seen a window itself, and what waits for that waits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from moe_operator.cache import Key
from moe_operator.drift import History, Tallies, Watched, plus, remember, since
from moe_operator.router_report import RouterReport

# Who asked nobody for so long did not lead, or slept.
_GAP: Final = timedelta(seconds=60)


@dataclass(slots=True)
class _Gate:
    """One watched gate; `stood` is where each router's counters stood: pod -> (process, sums)."""

    of: Watched
    history: History = field(default_factory=History)
    stood: dict[str, tuple[str, Tallies]] = field(default_factory=dict)
    heard: datetime | None = None

    def hear(self, reports: Iterable[RouterReport], now: datetime) -> bool:
        """Take in what routers said; return whether an alarm came or went, or a window is whole."""
        if self.heard is None or now - self.heard > _GAP:
            self.history, self.stood = History(), {}  # what came meanwhile is of no known time
        self.heard, before = now, self.history
        came = self.came(reports)
        if any(tally.rows for tally in came.values()):
            self.history = remember(before, came, self.of)
        after = self.history
        moved = after.alarms.keys() != before.alarms.keys()
        return moved or after.whole_window != before.whole_window

    def came(self, reports: Iterable[RouterReport]) -> Tallies:
        """Return what routers counted since they were last heard.

        One that is heard for the first time may have counted for long: that is passed over.
        """
        found: Tallies = {}
        stood, self.stood = self.stood, {}
        for report in reports:
            now, known = report.tallies.get(self.of.sha256), stood.get(report.pod)
            if now is None:
                continue
            self.stood[report.pod] = report.incarnation, now
            if known is not None:
                same = known[0] == report.incarnation
                found = plus(found, since(now, known[1]) if same else now)
        return found


@dataclass(slots=True)
class Drifts:
    """What is remembered of every mixture, by the name of the Gate."""

    _mixtures: dict[Key, dict[str, _Gate]] = field(default_factory=dict)

    def histories(self, key: Key) -> Mapping[str, History]:
        return {name: gate.history for name, gate in self._mixtures.get(key, {}).items()}

    def all(self) -> Iterator[tuple[Key, Watched, History]]:
        for key, gates in self._mixtures.items():
            for gate in gates.values():
                yield key, gate.of, gate.history

    def follow(self, key: Key, watched: Iterable[Watched]) -> None:
        """Listen for these from now on; what is watched otherwise than before begins anew."""
        known = self._mixtures.pop(key, {})
        gates = {
            of.gate: known[of.gate] if of.gate in known and known[of.gate].of == of else _Gate(of)
            for of in watched
        }
        if gates:
            self._mixtures[key] = gates

    def leave(self, key: Key) -> None:
        self._mixtures.pop(key, None)

    def hear(self, key: Key, reports: Iterable[RouterReport], now: datetime) -> bool:
        """Take in what routers said; return whether that changes what follows from it."""
        said = tuple(reports)
        news = [gate.hear(said, now) for gate in self._mixtures.get(key, {}).values()]
        return any(news)
