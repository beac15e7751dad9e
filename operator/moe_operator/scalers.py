"""Remembers what the workers of each expert bore, and tells when that asks for other replicas.

Between looks it takes in what routers said, which is often, and has a mixture looked at only where
something would come of it. All this is memory only: an operator that starts anew leaves the
replicas as they are until it has seen enough.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from moe_core.worker_load import Reading, readings, sample
from moe_operator.cache import Key
from moe_operator.router_report import RouterReport
from moe_operator.scaling import History, Size, miss, remember, scale

# What a router said longer ago is not what its workers do now.
_FRESH: Final = timedelta(seconds=5)


@dataclass(slots=True)
class _Mixture:
    """The sizes of the last look, and what was heard, by the name of the Expert."""

    sizes: Mapping[str, Size] = field(default_factory=dict)
    histories: dict[str, History] = field(default_factory=dict)


@dataclass(slots=True)
class Scalers:
    """What is remembered of every mixture."""

    _mixtures: dict[Key, _Mixture] = field(default_factory=dict)

    def histories(self, key: Key) -> Mapping[str, History]:
        known = self._mixtures.get(key)
        return {} if known is None else dict(known.histories)

    def follow(self, key: Key, sizes: Mapping[str, Size]) -> None:
        """Listen for these from now on, and forget all others."""
        if not sizes:
            self.leave(key)
            return
        known = self._mixtures.setdefault(key, _Mixture())
        known.sizes = sizes
        known.histories = {n: h for n, h in known.histories.items() if n in sizes}

    def leave(self, key: Key) -> None:
        self._mixtures.pop(key, None)

    def hear(self, key: Key, reports: Iterable[RouterReport], now: datetime) -> bool:
        """Take in what routers said; return whether that asks for another number of replicas."""
        known = self._mixtures.get(key)
        if known is None:
            return False
        fresh = [report for report in reports if now - report.at <= _FRESH]
        heard = readings(fresh)
        moved = [
            _listen(known, name, size, fresh)
            if size.sleeper
            else _hear(known, name, size, heard, now)
            for name, size in known.sizes.items()
        ]
        return any(moved)


def _listen(known: _Mixture, name: str, size: Size, reports: Iterable[RouterReport]) -> bool:
    """Take in whether rows came for what sleeps; return whether that wakes it."""
    told = {
        (report.pod, report.incarnation): report.versions[size.sleeper]
        for report in reports
        if size.sleeper in report.versions
    }
    misses = {router: counters.requests for router, counters in told.items()}
    waiting = any(counters.waiting_rows for counters in told.values())
    history = miss(known.histories.get(name, History()), misses, waiting=waiting)
    known.histories[name] = history
    return history.wanted


def _hear(
    known: _Mixture, name: str, size: Size, heard: Mapping[str, Reading], now: datetime
) -> bool:
    history = known.histories.get(name, History())
    last = history.samples[-1] if history.samples else None
    found = sample(now, heard, size.pods, last)
    if not found.workers:
        return False
    history = known.histories[name] = remember(history, found, size)
    replicas, _ = scale(history, size, now)
    return replicas != size.replicas
