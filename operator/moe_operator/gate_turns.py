"""Takes each Gate one step further as if it were alone: its next row, and what it waits for.

One gate of a mixture is on trial at a time, and none while an expert is: verdicts would be about
both. Whether what comes of it fits the experts is decided by `pairing`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from moe_core.rows import ExpertRow, GateRow, GateVariant
from moe_core.table import Table
from moe_operator.case import Case, Decision
from moe_operator.ending import promote, revoke, swap
from moe_operator.evaluators import Wanted, evaluate, wanted
from moe_operator.findings import Sources, judge_gate
from moe_operator.fit import Accepted, draw, lacking, on_trial, together
from moe_operator.leading import Lead, leads
from moe_operator.lineage import trace
from moe_operator.members import lacks
from moe_operator.override_spec import Action
from moe_operator.overrides import decide, lifted
from moe_operator.reach import Reach
from moe_operator.reason import Reason, Why, listed
from moe_operator.restore import Restored
from moe_operator.rollout import advance
from moe_operator.seen import Seen, by_gate
from moe_operator.spec import GateSpec, MixtureSpec
from moe_operator.template import Settings
from moe_operator.trial import (
    GateCase,
    GateReach,
    as_expert,
    as_gate,
    as_row,
    known_variants,
    plain,
)
from moe_operator.turn import Turn
from moe_operator.world import Window, World


@dataclass(frozen=True, slots=True)
class GateTurn:
    """One Gate in this pass; `turn` is in the terms of an expert, `variants` are by sha256."""

    gate: GateSpec
    mixture: MixtureSpec
    before: GateRow | None
    turn: Turn
    variants: Mapping[str, GateVariant]

    @property
    def name(self) -> str:
        return self.gate.meta.name

    @property
    def wanted(self) -> GateVariant:
        """The variant to end at."""
        return self.variants[self.turn.case.wanted.sha256]

    @property
    def row(self) -> GateRow:
        """The row as it is to be, if it fits; of a gate that is new, with what is wanted."""
        if self.turn.row.stable is None:
            return GateRow(self.name, self.turn.row.layers, self.wanted)
        return as_gate(self.turn.row, self.variants)

    @property
    def whole(self) -> GateRow | None:
        """The row as it is where it changes at once, with experts; None where it is not ready.

        That is when it would get its first weight.
        """
        row, raised = self.turn.before, self.turn.row.rollout
        if not self.dark or raised is None or not raised.weights:
            return None
        return self.at_once(row)

    def at_once(self, row: ExpertRow) -> GateRow:
        """Return the row as it is where `row`, which is on trial, is promoted now."""
        rollout, stable = row.rollout, row.stable
        assert rollout is not None
        assert stable is not None
        said = f"{rollout.target.version} is served, with the versions of experts that it accepts"
        new = promote(row, rollout, said, self.turn.case).row
        return as_gate(replace(new, previous=None, revoked=revoke(new, stable)), self.variants)

    @property
    def on_trial(self) -> bool:
        return on_trial(self.turn.row)

    @property
    def dark(self) -> bool:
        """Whether a candidate is in the shadow of the stable variant: no session has seen it."""
        row, rollout = self.turn.before, self.turn.before.rollout
        return row.candidate is not None and rollout is not None and not rollout.weights

    def awaits(self, experts: Mapping[str, ExpertRow]) -> bool:
        """Return whether it is in the dark and waits for versions of experts that it accepts."""
        return self.dark and bool(lacking(self.row, self.wanted, experts))


def gate_turns(
    world: World,
    mixture: MixtureSpec,
    reach: Reach,
    windows: Mapping[str, Window],
    restored: Restored,
    settings: Settings,
) -> tuple[GateTurn, ...]:
    """Return the turns of all Gates, the oldest first; none begins a rollout yet."""
    rows, led = rows_by_name(world.table.table if world.table else None), leads(world)
    named = [variant.sha256 for row in rows.values() for variant in row.named]
    seen, own = by_gate(world), GateReach.over(reach, named)
    gates = sorted((g for g in world.gates if not g.meta.deleting), key=lambda g: g.meta.age_key)
    turns = []
    for gate in gates:
        name = gate.meta.name
        row = rows.get(name)
        lead = None if row is None else led.get(draw(row))
        case = _case(gate, mixture, own, windows, row, seen[name], restored, lead)
        turns.append(_turn(gate, mixture, row, case, seen[name], restored, world, settings, lead))
    return tuple(turns)


def rows_by_name(table: Table | None) -> dict[str, GateRow]:
    """Return the gates in service by the name of the Gate object."""
    return {} if table is None else {row.name: row for row in table.gates}


def _case(
    gate: GateSpec,
    mixture: MixtureSpec,
    reach: GateReach,
    windows: Mapping[str, Window],
    before: GateRow | None,
    seen: Seen,
    restored: Restored,
    lead: Lead | None,
) -> GateCase:
    expert, row = as_expert(gate, mixture), as_row(gate, mixture, before)
    expert = expert if lead is None else lead.over(expert)
    override, kept = restored.gates.get(gate.meta.name, (None, None))
    asked = () if override is None or kept is None else ((override, plain(kept.stable)),)
    decided = decide(expert, row, seen.revisions, seen.overrides, Accepted(), asked)
    return GateCase(
        expert=expert,
        decided=decided,
        revision=0,
        reach=reach,
        windows=windows,
        refused=seen.refused,
        problems={},
        replicas={},
        epoch=reach.next_epoch,
    )


def _turn(
    gate: GateSpec,
    mixture: MixtureSpec,
    before: GateRow | None,
    case: GateCase,
    seen: Seen,
    restored: Restored,
    world: World,
    settings: Settings,
    lead: Lead | None,
) -> GateTurn:
    expert, row, once = case.expert, as_row(gate, mixture, before), case.decided.once
    retried = once is not None and once.action is Action.RETRY and case.decided.serve is None
    again = retried or lifted(row, case.decided)
    lineage = trace(expert, row, seen.revisions, again, gate.variant.to_dict)
    case = replace(case, revision=lineage.current.number)
    want = _wanted(before, row, case, mixture, world, lead)
    evaluated = evaluate(want, seen.evaluators, settings) if want else None
    sources = Sources(mixture, evaluated, world.routers, world.answers)
    if before is not None:
        case = replace(case, judgement=judge_gate(before, row, case, sources))
    variants = known_variants(gate, before, lineage.revisions, world.snapshots)
    _, kept = restored.gates.get(gate.meta.name, (None, None))
    if kept is not None:
        variants[kept.stable.sha256] = kept.stable  # with what it accepted in that epoch
    turn = Turn(case, row, _decide(row, case), lineage, seen, evaluated)
    return GateTurn(gate, mixture, before, turn, variants)


def _wanted(
    before: GateRow | None,
    row: ExpertRow,
    case: Case,
    mixture: MixtureSpec,
    world: World,
    lead: Lead | None,
) -> Wanted | None:
    """Return what is to be evaluated: the gate that leads with all that goes with it, at once."""
    if before is None or before.candidate is None or world.table is None:
        return None
    table = world.table.table
    alone = lacking(before, before.candidate, {e.expert_id: e for e in table.experts})
    if alone or lead is None or lead.name != before.name:
        return None
    others = (other for other in (*table.gates, *table.experts) if other != before)
    return wanted(row, case, mixture, [other for other in others if together(before, other)])


def _decide(row: ExpertRow, case: Case) -> Decision:
    """Return the next step of a gate; what a person asks for is served at once, being small."""
    stable, wanted = row.stable, case.wanted
    if stable is None:
        return Decision(row, Why(Reason.COMPLETE, f"{wanted.version} is served"))
    if case.decided.serve is None or wanted.sha256 == stable.sha256:
        return advance(row, case)
    swapped = swap(row, stable, case)
    if row.candidate is None or row.candidate.sha256 == wanted.sha256:
        return swapped
    revoked = revoke(swapped.row, row.candidate)
    return replace(swapped, row=replace(swapped.row, revoked=revoked))


def begin_one(
    turns: tuple[GateTurn, ...],
    experts: Mapping[str, ExpertRow],
    possible: Mapping[str, ExpertRow],
    reach: Reach,
) -> tuple[GateTurn, ...]:
    """Let one gate begin its rollout where nothing else is on trial; the others say why not.

    `experts` are as they are to be alone, `possible` as they could be with a gate. One that waits
    for versions of experts keeps nobody waiting.
    """
    trials = [expert_id for expert_id, row in experts.items() if on_trial(row)]
    tried = (turn for turn in turns if turn.on_trial and not turn.awaits(experts))
    under_way = [*trials, *(f"Gate {turn.name}" for turn in tried)]
    asking = sorted((turn for turn in turns if turn.turn.decision.asks), key=_place)
    decided: dict[str, Decision] = {}
    for one in asking:
        case, decision = one.turn.case, one.turn.decision
        why = lacks(one.wanted, one.turn.row.layers, one.before, possible, reach)
        if why is not None:
            decided[one.name] = replace(decision, why=why)
        elif under_way:
            why = Why(
                Reason.WOULD_CONFOUND,
                f"{case.wanted.version} waits for the rollouts of {listed(under_way)} to end: "
                "their verdicts would be about two gates",
            )
            decided[one.name] = replace(decision, why=why)
        else:
            decided[one.name] = advance(one.turn.before, replace(case, granted=True))
            if not one.awaits(experts):
                under_way = [f"Gate {one.name}"]
    return tuple(
        replace(one, turn=replace(one.turn, decision=decided.get(one.name, one.turn.decision)))
        for one in turns
    )


def _place(one: GateTurn) -> tuple[bool, str, str]:
    """Return what orders rollouts; a revision that is only about to be made is the newest."""
    created = one.turn.lineage.current.created
    return (created == "", created, one.name)
