"""One pass over a mixture: from what is observed to all that is to be done, as data.

Composes the decisions about experts, gates and children into one new table at most. A total
function of its arguments: called again after its plan was carried out, in whole or in part, it
asks for what is left, and for nothing once all is as it should be.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial

from moe_core.table import ExpertRow, GateRow, GateVariant, Table, Version
from moe_operator.admission import admit, closing_rows, opening_rows
from moe_operator.case import Case, Decision
from moe_operator.children import expert_children, leaving, unapplied
from moe_operator.departure import plan_departure
from moe_operator.epochs import forgotten, unkept
from moe_operator.evaluators import evaluate, unwanted, wanted
from moe_operator.findings import Sources, judge
from moe_operator.fit import Accepted, accepts, on_trial
from moe_operator.gate_turns import GateTurn, begin_one, gate_turns, rows_by_name
from moe_operator.gates import Gates, Surroundings, coming
from moe_operator.held import joined
from moe_operator.idle import wakes_at
from moe_operator.intent import Delete, Plan, Status
from moe_operator.lineage import trace
from moe_operator.memory import remember
from moe_operator.order import begin_in_order
from moe_operator.overrides import because, decide, lifted
from moe_operator.pairing import Experts, Pairs, pair
from moe_operator.pruning import outdated
from moe_operator.reach import Reach
from moe_operator.reason import Reason, Why
from moe_operator.render import mixture_children
from moe_operator.report import Outlook, report
from moe_operator.restore import Restored, restore
from moe_operator.rollout import advance
from moe_operator.seen import Seen, by_expert
from moe_operator.spec import Action, ExpertSpec, MixtureSpec
from moe_operator.spread import Move, spread
from moe_operator.telling import changes, lapses, steps
from moe_operator.template import Settings, worker_template
from moe_operator.trial import as_row
from moe_operator.turn import Turn
from moe_operator.world import Window, World

__all__ = ["Settings", "plan_mixture"]


def plan_mixture(
    world: World, windows: Mapping[str, Window], settings: Settings, now: datetime
) -> Plan:
    """Return all that is to be done for a mixture now.

    `windows` are what the versions under rollout did since their step began, by sha256.
    """
    mixture, stored = world.mixture, world.table.table if world.table else None
    if mixture is None or mixture.meta.deleting:
        return plan_departure(world, now)
    reach, admission, seen = Reach.of(world, now), admit(world, mixture), by_expert(world)
    restored = restore(world)
    ids = frozenset(expert.expert_id for expert in admission.experts)
    rows_before = tuple(opening_rows(admission.experts, stored, ids))
    gate_alone = gate_turns(world, mixture, reach, windows, restored, settings)
    asked = coming(gate_alone)
    accepted = Accepted.by(stored.gates if stored else ())
    alone = tuple(
        _turn(
            world,
            mixture,
            expert,
            row,
            seen[expert.meta.name],
            _Around(reach, windows, accepted, asked.get(expert.expert_id, ()), restored),
            settings,
        )
        for expert, row in zip(admission.experts, rows_before, strict=True)
    )
    around = Surroundings(world, mixture, rows_by_name(stored), reach)
    experts = _experts(alone)
    gate_alone = begin_one(gate_alone, experts.rows, experts.possible, reach)
    pairs = pair(around, gate_alone, experts, restored)
    gates = pairs.gates
    first = gates.first(gate_alone, experts.rows)
    turns = begin_in_order(_together(alone, pairs), mixture.max_concurrent, gates, first)
    of_gates = tuple(_settled(one, gates) for one in gate_alone)
    tried = (*turns, *of_gates)
    rows = {turn.row.expert_id: turn.row for turn in turns}
    closing = closing_rows(rows, stored, gates.rows, admission.refused, now)
    table = _table(mixture, stored, reach.next_epoch, gates.rows, closing)
    children = [expert_children(t.case, t.decision, t.lineage, mixture, settings) for t in turns]
    manifests = [*mixture_children(mixture, settings), *(m for c in children for m in c.manifests)]
    named = [*table.experts, *(stored.experts if stored else ())]
    kept = frozenset(name for child in children for name in child.kept)
    changed = unapplied(world, manifests)
    gone = leaving(world, kept, named, reach.released(stored.epoch if stored else 0))
    settled = table is stored and not changed and not gone
    move = spread(world, table, reach) if settled else Move()
    statuses = report(
        Outlook(world, mixture, table, turns, of_gates, admission, gates, reach, restored)
    )
    # What a table says is put down as soon as it is stored.
    written = None if table is stored else now
    idle = (wakes_at(turn.row, turn.case) for turn in turns)
    times = (written, move.again_at, *(at for turn in tried for at in turn.times), *idle)
    return Plan(
        revisions=tuple(t.lineage.made for t in tried if t.lineage.made is not None),
        snapshots=unkept(stored, world.snapshots),
        locks=(*_locks(world, table), *(() if table is stored else _memories(tried))),
        table=None if table is stored else table,
        manifests=changed,
        deletes=(*gone, *move.deletes, *_pruned(world, mixture, tried)),
        statuses=statuses,
        notes=(*steps(tried), *changes(tried, statuses), *lapses(world, statuses), *move.notes),
        pods=tuple(turn.evaluator for turn in tried if turn.evaluator is not None),
        again_at=min((at for at in times if at is not None), default=None),
    )


@dataclass(frozen=True, slots=True)
class _Around:
    """What is around an expert: `gates` are variants that list it and are not stable yet."""

    reach: Reach
    windows: Mapping[str, Window]
    accepted: Accepted
    gates: tuple[GateVariant, ...]
    restored: Restored

    def awaits(self, expert_id: str, version: Version) -> bool:
        """Return whether a gate that is to come accepts a version."""
        return any(accepts(gate, expert_id, version.version) for gate in self.gates)


def _turn(
    world: World,
    mixture: MixtureSpec,
    expert: ExpertSpec,
    row: ExpertRow,
    seen: Seen,
    around: _Around,
    settings: Settings,
) -> Turn:
    """Take one expert one step further, as if it were alone."""
    brought_back = around.restored.experts.get(expert.meta.name, ())
    decided = decide(expert, row, seen.revisions, seen.overrides, around.accepted, brought_back)
    retried = decided.once is not None and decided.once.action is Action.RETRY
    again = (retried and decided.serve is None) or lifted(row, decided)
    render = partial(worker_template, mixture, expert, expert.version, settings)
    lineage = trace(expert, row, seen.revisions, again, render)
    case = Case(
        expert=expert,
        decided=decided,
        revision=lineage.current.number,
        reach=around.reach,
        windows=around.windows,
        refused=seen.refused,
        problems=seen.problems,
        replicas=seen.replicas,
        epoch=around.reach.next_epoch,
        accepted=around.accepted,
        awaited=around.awaits(expert.expert_id, decided.served or expert.version),
        placed=seen.placed,
    )
    want = wanted(row, case, mixture)
    evaluated = evaluate(want, seen.evaluators, settings) if want else None
    sources = Sources(mixture, evaluated, world.routers, world.answers)
    judged = replace(case, judgement=judge(row, case, sources))
    return Turn(judged, row, advance(row, judged), lineage, seen, evaluated)


def _experts(turns: tuple[Turn, ...]) -> Experts:
    held = {t.row.expert_id: joined(t.before, t.decision, t.case) for t in turns}
    return Experts(
        rows={turn.row.expert_id: turn.row for turn in turns},
        joinable={expert_id: row for expert_id, row in held.items() if row is not None},
        wanted={turn.row.expert_id: turn.case.wanted.version for turn in turns},
        trials=[turn.row.expert_id for turn in turns if on_trial(turn.row)],
    )


def _together(turns: tuple[Turn, ...], pairs: Pairs) -> tuple[Turn, ...]:
    """Let what was held be served where its gate now is."""

    def served(turn: Turn) -> Turn:
        row = pairs.joined.get(turn.row.expert_id)
        if row is None:
            return turn
        serve, sentence = turn.case.decided.serve, f"{turn.case.wanted.version} is served"
        why = Why(Reason.COMPLETE, f"{sentence}, with its gate")
        told = Why(Reason.PROMOTED, why.message)
        if serve is not None:
            why = told = Why(Reason.OVERRIDDEN, f"{sentence}, with its gate: {because(serve)}")
        return replace(turn, decision=Decision(row, why, told=told, again_at=turn.case.now))

    return tuple(map(served, turns))


def _settled(one: GateTurn, gates: Gates) -> Turn:
    """Return a gate's turn as it came out: where its row does not change, nothing is told of it."""
    turn, row = one.turn, gates.row(one.name)
    decision = replace(turn.decision, why=gates.whys[one.name])
    if row is not None and row not in (one.row, one.before) and one.before is not None:
        said = f"{row.stable.version} is served, with the versions of experts that it accepts"
        told, why = Why(Reason.PROMOTED, said), Why(Reason.COMPLETE, said)
        decision = replace(decision, why=why, told=told, again_at=turn.case.now)
    if row is not None and row != one.before:
        return replace(turn, decision=replace(decision, row=as_row(one.gate, one.mixture, row)))
    return replace(turn, decision=replace(decision, row=turn.before, told=None))


def _pruned(world: World, mixture: MixtureSpec, turns: tuple[Turn, ...]) -> Iterator[Delete]:
    """Give what is no longer needed: old revisions and epochs, and evaluators that had their say.

    An evaluator stays until the table says what became of it.
    """
    for turn in turns:
        rows, limit = (turn.before, turn.row), turn.case.expert.history_limit
        yield from outdated(turn.seen.revisions, rows, turn.seen.overrides, limit)
        kept = ""
        if turn.evaluated is not None and wanted(turn.row, turn.case, mixture) is not None:
            kept = turn.evaluated.kept
        yield from unwanted(turn.seen.evaluators, kept)
    yield from forgotten(world.snapshots, mixture.history_limit, world.overrides)


def _table(
    mixture: MixtureSpec,
    stored: Table | None,
    epoch: int,
    gates: tuple[GateRow, ...],
    experts: tuple[ExpertRow, ...],
) -> Table:
    """Return the stored table itself where nothing changes, else one of the next epoch."""
    table = Table(
        mixture=mixture.meta.name,
        uid=stored.uid if stored else "",
        epoch=stored.epoch if stored else epoch,
        hidden_size=mixture.hidden_size,
        layers=mixture.layers,
        dtype=mixture.dtype.value,
        trunk_sha256=mixture.trunk_sha256,
        failover=mixture.failover,
        gates=gates,
        experts=experts,
    )
    if stored is None:
        return table
    return stored if table == stored else replace(table, epoch=epoch)


def _memories(turns: tuple[Turn, ...]) -> Iterator[Status]:
    """Give what status.history lacks of the rollouts that the next table may forget."""
    for turn in turns:
        meta, limit = turn.case.expert.meta, turn.case.expert.history_limit
        history = remember(meta, (turn.before.rollout,), limit)
        if history != meta.status.get("history", []):
            yield Status(turn.case.expert.kind.value, meta.name, {"history": history})


def _locks(world: World, table: Table) -> tuple[Status, ...]:
    """Return what must be marked as in use before the table names it."""
    listed = {expert_id for gate in table.gates for expert_id in gate.experts}
    gates = {gate.name for gate in table.gates}
    metas = [
        *(("Expert", e.meta) for e in world.experts if e.expert_id in listed),
        *(("Gate", g.meta) for g in world.gates if g.meta.name in gates),
    ]
    return tuple(
        Status(kind, meta.name, {**meta.status, "inUse": True})
        for kind, meta in metas
        if meta.status.get("inUse") is not True and not meta.deleting
    )
