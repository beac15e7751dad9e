"""How long rollouts took, and how they ended: counted when the table that says so is stored.

Only what took the place of something, or would have: a first version that begins to serve is no
rollout. In memory, as all counters are: each end is counted by the operator that wrote it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from moe_core.metrics import Histogram
from moe_core.rollout import Outcome
from moe_core.rows import ExpertRow, GateRow
from moe_core.table import Table
from moe_operator.cache import Key
from moe_operator.reason import Reason, Why, moment
from moe_operator.spec import Tried
from moe_operator.world import Revision

BOUNDS_S: Final = (10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 14400.0, 86400.0)


@dataclass(frozen=True, slots=True)
class End:
    """One rollout that ended; `took_s` since its version was asked for, None where nobody knows."""

    kind: Tried
    outcome: Outcome
    reason: Reason
    took_s: float | None


def ended(
    before: Table | None, after: Table, revisions: Iterable[Revision], now: datetime
) -> Iterator[End]:
    """Give the rollouts that were under way before and are over after."""
    if before is None:
        return
    created = {(r.kind, r.expert, r.number): r.created for r in revisions}
    experts = {row.name: row for row in after.experts}
    gates = {row.name: row for row in after.gates}
    pairs: list[tuple[Tried, ExpertRow | GateRow, ExpertRow | GateRow | None]] = [
        *((Tried.EXPERT, row, experts.get(row.name)) for row in before.experts),
        *((Tried.GATE, row, gates.get(row.name)) for row in before.gates),
    ]
    for kind, old, new in pairs:
        rollout = None if new is None else new.rollout
        if old.rollout is None or old.rollout.outcome.ended or old.stable is None:
            continue
        if rollout is None or not rollout.outcome.ended:
            continue
        if rollout.revision == old.rollout.revision:
            began = created.get((kind, old.name, rollout.revision))
            why = Why.parse(rollout.reason, Reason(rollout.outcome.value))
            took_s = (now - moment(began)).total_seconds() if began else None
            yield End(kind, rollout.outcome, why.reason, took_s)


class Ends:
    """Sums over the rollouts that ended, by mixture, kind and how."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[Key, Tried, Outcome, Reason]] = Counter()
        self.durations: dict[tuple[Key, Tried, Outcome], Histogram] = {}

    def take(self, key: Key, ends: Iterable[End]) -> None:
        for end in ends:
            self.counts[key, end.kind, end.outcome, end.reason] += 1
            if end.took_s is not None:
                place = key, end.kind, end.outcome
                self.durations.setdefault(place, Histogram(BOUNDS_S)).observe(end.took_s)
