"""Which gates the new table has: what became of each alone, where its layers and experts allow it.

A variant comes into the table, be it only to be tried out in the shadow, once every expert that it
lists can serve; what it has to give up it gives up at once. Of several Gates that claim a layer the
oldest counts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from moe_core.rows import ExpertRow, GateRow, GateVariant
from moe_operator.admission import beyond, refused_specs
from moe_operator.fit import on_trial
from moe_operator.gate_turn import GateTurn
from moe_operator.members import lacks
from moe_operator.reach import Reach
from moe_operator.reason import Reason, Why, listed
from moe_operator.spec import MixtureSpec
from moe_operator.world import World


@dataclass(frozen=True, slots=True)
class Gates:
    """The rows of the new table, and how far each Gate object is, by name."""

    rows: tuple[GateRow, ...]
    whys: Mapping[str, Why]

    def row(self, name: str) -> GateRow | None:
        return next((row for row in self.rows if row.name == name), None)

    def first(self, turns: Iterable[GateTurn], experts: Mapping[str, ExpertRow]) -> str:
        """Return a gate that waits for rollouts of experts, or is on trial: none begins before it.

        One that waits for versions of experts lets them come.
        """
        waits = (n for n, why in self.whys.items() if why.reason is Reason.WOULD_CONFOUND)
        rows = {row.name: row for row in self.rows}
        tried = (t.name for t in turns if t.name in rows and on_trial(rows[t.name]))
        free = {turn.name for turn in turns if turn.awaits(experts)}
        return next((name for name in chain(waits, tried) if name not in free), "")


@dataclass(frozen=True, slots=True)
class Coming:
    """A variant that is asked for and not stable yet, and its first share of sessions, percent."""

    variant: GateVariant
    percent: int


def coming(turns: Iterable[GateTurn]) -> Mapping[str, tuple[Coming, ...]]:
    """Return the variants that are asked for and not stable yet, by the experts that they list."""
    found = defaultdict[str, tuple[Coming, ...]](tuple)
    for turn in turns:
        variant = turn.wanted
        if turn.before is None or turn.before.stable != variant:
            one = Coming(variant, turn.gate.rollout.steps[0].weight)
            for expert_id in variant.experts:
                found[expert_id] += (one,)
    return found


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is around the gates: the experts' rows as they are to be, and who reaches them."""

    world: World
    mixture: MixtureSpec
    before: Mapping[str, GateRow]
    reach: Reach


def plan_gates(
    around: Surroundings,
    targets: Sequence[tuple[GateTurn, GateRow]],
    experts: Mapping[str, ExpertRow],
    stay: Mapping[str, Why],
) -> Gates:
    """Return the gates to serve, given the rows of the experts as they are to be.

    `targets` are the turns, the oldest first, with the rows that they are to have; those in `stay`
    do not change now, for the reason given.
    """
    whys, before = refused_specs(around.world, "Gate"), around.before
    rows = {name: before[name] for name in whys if name in before}
    owners = {layer: row.name for row in rows.values() for layer in row.layers}
    for turn, target in targets:
        name = turn.name
        why = beyond(target.layers, around.mixture) or _conflict(target, owners)
        why = why or _missing(target, before.get(name), experts, around.reach) or stay.get(name)
        row = before.get(name) if why else target
        if row is not None and _conflict(row, owners) is None:
            rows[name] = row
            owners |= dict.fromkeys(row.layers, name)
        said = turn.turn.decision.why
        if why is None and row is not None and said.reason is Reason.COMPLETE:
            why = _missed(row, around.world)
        whys[name] = why or said
    return Gates(tuple(sorted(rows.values(), key=lambda row: row.name)), whys)


def _missed(row: GateRow, world: World) -> Why | None:
    """Return which experts of a gate are gone though it is served; None where none is.

    An Expert whose spec cannot be read is there.
    """
    known = {expert.expert_id for expert in world.experts}
    unread = {invalid.meta.name for invalid in world.invalid if invalid.kind == "Expert"}
    rows = world.table.table.experts if world.table is not None else ()
    known |= {expert.expert_id for expert in rows if expert.name in unread}
    gone = [expert_id for expert_id in row.stable.experts if expert_id not in known]
    if not gone:
        return None
    said = f"no Expert has the id {listed(gone)}: {row.stable.version} is served without"
    return Why(Reason.EXPERTS_MISSING, said)


def _conflict(row: GateRow, owners: Mapping[int, str]) -> Why | None:
    for layer in row.layers:
        owner = owners.get(layer, row.name)
        if owner != row.name:
            return Why(Reason.CONFLICT, f"layer {layer} is that of the older Gate {owner}")
    return None


def _missing(
    row: GateRow, before: GateRow | None, experts: Mapping[str, ExpertRow], reach: Reach
) -> Why | None:
    """Return what keeps a variant that was not there before from coming into the table."""
    known = {v.sha256 for v in before.named} if before else set()
    fresh = (variant for variant in row.named if variant.sha256 not in known)
    whys = (lacks(variant, row.layers, before, experts, reach) for variant in fresh)
    return next((why for why in whys if why is not None), None)
