"""Takes each Gate one step further as if it were alone: its next row, and what it waits for.

Whose turn it is to begin is decided by `gate_order`, whether what comes of it fits the experts by
`pairing`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain

from moe_core.rows import ExpertRow, GateRow
from moe_core.table import Table
from moe_operator.case import Case, Decision
from moe_operator.drifting import drift_findings, watched
from moe_operator.ending import revoke, swap
from moe_operator.evaluators import Wanted, evaluate, wanted
from moe_operator.findings import Sources, judge_gate
from moe_operator.fit import Accepted, draw, lacking, together
from moe_operator.gate_turn import GateTurn
from moe_operator.judgement import Finding
from moe_operator.leading import Lead, leads
from moe_operator.lineage import trace
from moe_operator.override_spec import Action
from moe_operator.overrides import decide, lifted
from moe_operator.reach import Reach
from moe_operator.reason import Reason, Why
from moe_operator.restore import Restored
from moe_operator.rollout import advance
from moe_operator.seen import Seen, by_gate
from moe_operator.spec import GateSpec, MixtureSpec
from moe_operator.template import Settings
from moe_operator.trial import GateCase, GateReach, as_expert, as_row, known_variants, plain
from moe_operator.turn import Turn
from moe_operator.window import Window
from moe_operator.world import World


def gate_turns(
    world: World,
    mixture: MixtureSpec,
    reach: Reach,
    windows: Mapping[str, Window],
    restored: Restored,
    settings: Settings,
    ill: tuple[Finding, ...],
) -> tuple[GateTurn, ...]:
    """Return the turns of all Gates, the oldest first; none begins a rollout yet.

    `ill` is what unhealthy experts say against any rollout.
    """
    rows, led = rows_by_name(_stored(world)), leads(world)
    named = [variant.sha256 for row in rows.values() for variant in row.named]
    seen, own = by_gate(world), GateReach.over(reach, named)
    gates = sorted((g for g in world.gates if not g.meta.deleting), key=lambda g: g.meta.age_key)
    turns = []
    for gate in gates:
        name = gate.meta.name
        row = rows.get(name)
        lead = None if row is None else led.get(draw(row))
        around = _Around(
            world, mixture, own, windows, restored, settings, ill, row, seen[name], lead
        )
        turns.append(_turn(gate, around))
    return tuple(turns)


def _stored(world: World) -> Table | None:
    return None if world.table is None else world.table.table


def rows_by_name(table: Table | None) -> dict[str, GateRow]:
    """Return the gates in service by the name of the Gate object."""
    return {} if table is None else {row.name: row for row in table.gates}


@dataclass(frozen=True, slots=True)
class _Around:
    """What is around a gate: `before` is its row in service, `lead` who leads its rollout."""

    world: World
    mixture: MixtureSpec
    reach: GateReach
    windows: Mapping[str, Window]
    restored: Restored
    settings: Settings
    ill: tuple[Finding, ...]
    before: GateRow | None
    seen: Seen
    lead: Lead | None


def _case(gate: GateSpec, row: ExpertRow, around: _Around) -> GateCase:
    expert, seen = as_expert(gate, around.mixture), around.seen
    override, kept = around.restored.gates.get(gate.meta.name, (None, None))
    asked = () if override is None or kept is None else ((override, plain(kept.stable)),)
    return GateCase(
        expert=expert if around.lead is None else around.lead.over(expert),
        decided=decide(expert, row, seen.revisions, seen.overrides, Accepted(), asked),
        revision=0,
        reach=around.reach,
        windows=around.windows,
        refused=seen.refused,
        problems={},
        replicas={},
        epoch=around.reach.next_epoch,
    )


def _turn(gate: GateSpec, around: _Around) -> GateTurn:
    mixture, before, seen, world = around.mixture, around.before, around.seen, around.world
    row = as_row(gate, mixture, before)
    case = _case(gate, row, around)
    once = case.decided.once
    retried = once is not None and once.action is Action.RETRY and case.decided.serve is None
    again = retried or lifted(row, case.decided)
    lineage = trace(case.expert, row, seen.revisions, again, gate.variant.to_dict)
    case = replace(case, revision=lineage.current.number)
    want = _wanted(row, case, around)
    evaluated = evaluate(want, seen.evaluators, around.settings) if want else None
    drifts = drift_findings(watched((gate,), _stored(world)), world.drifts)
    alarms = (*drifts, *around.ill)
    sources = Sources(mixture, evaluated, world.routers, world.answers, alarms)
    if before is not None:
        case = replace(case, judgement=judge_gate(before, row, case, sources))
    variants = known_variants(gate, before, lineage.revisions, world.snapshots)
    _, kept = around.restored.gates.get(gate.meta.name, (None, None))
    if kept is not None:
        variants[kept.stable.sha256] = kept.stable  # with what it accepted in that epoch
    turn = Turn(case, row, _decide(row, case), lineage, seen, evaluated)
    return GateTurn(gate, mixture, before, turn, variants)


def _wanted(row: ExpertRow, case: Case, around: _Around) -> Wanted | None:
    """Return what is to be evaluated: the gate that leads with all that goes with it, at once."""
    before, lead, stored = around.before, around.lead, around.world.table
    if before is None or before.candidate is None or stored is None:
        return None
    if lead is None or lead.name != before.name:
        return None
    experts = stored.table.experts
    if lacking(before, before.candidate, {expert.expert_id: expert for expert in experts}):
        return None
    gates = (other for other in stored.table.gates if other != before)
    rows: Iterator[ExpertRow | GateRow] = chain(gates, experts)
    return wanted(row, case, around.mixture, [r for r in rows if together(before, r)])


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
