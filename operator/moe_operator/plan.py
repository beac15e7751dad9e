"""One pass over a mixture: from what is observed to all that is to be done, as data.

Composes the decisions about experts, gates and children into one new table at most. A total
function of its arguments: called again after its plan was carried out, in whole or in part, it
asks for what is left, and for nothing once all is as it should be.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime

from moe_core.rows import ExpertRow, GateRow
from moe_core.table import Table
from moe_operator import guards, journal
from moe_operator.admission import admit, closing_rows
from moe_operator.budgets import budgets
from moe_operator.children import Children, expert_children, leaving, unapplied
from moe_operator.departure import plan_departure
from moe_operator.drain import ROUTERS, Drain
from moe_operator.epochs import forgotten, unkept
from moe_operator.evaluators import unwanted, wanted
from moe_operator.gate_turns import rows_by_name
from moe_operator.gates import Surroundings
from moe_operator.idle import wakes_at
from moe_operator.intent import Delete, Manifest, Note, Plan, Status
from moe_operator.labels import WORKER
from moe_operator.memory import remember
from moe_operator.pruning import outdated
from moe_operator.reach import Reach
from moe_operator.readings import Readings
from moe_operator.render import mixture_children
from moe_operator.report import Outlook, report
from moe_operator.restore import restore
from moe_operator.sizing import resized
from moe_operator.spec import MixtureSpec
from moe_operator.spread import Move, spread
from moe_operator.telling import changes, lapses, steps
from moe_operator.template import Settings
from moe_operator.tls import TlsMode
from moe_operator.turn import Turn
from moe_operator.turns import take_turns
from moe_operator.window import Window
from moe_operator.world import World

__all__ = ["Settings", "plan_mixture"]


def plan_mixture(
    world: World,
    windows: Mapping[str, Window],
    settings: Settings,
    now: datetime,
    known: Readings | None = None,
) -> Plan:
    """Return all that is to be done for a mixture now.

    `windows` are what the versions under rollout did since their step began, by sha256. What is
    `known` from the last plan, with the world that it was made from, is not made again.
    """
    mixture, stored = world.mixture, world.table.table if world.table else None
    if mixture is None or mixture.meta.deleting:
        return plan_departure(world, now)
    reach = Reach.of(world, now)
    if stored is not None and reach.overtaken:
        return _past_routers(stored, reach)
    admission, restored = admit(world, mixture), restore(world)
    around = Surroundings(world, mixture, rows_by_name(stored), reach)
    decided = take_turns(around, admission, stored, windows, restored, settings)
    turns, of_gates, gates = decided.turns, decided.of_gates, decided.gates
    tried = (*turns, *of_gates)
    rows = {turn.row.expert_id: turn.row for turn in turns}
    closing = closing_rows(rows, stored, gates.rows, admission.refused, now)
    table = _table(mixture, stored, reach.next_epoch, gates.rows, closing)
    remembered = Readings() if known is None else known
    drain = Drain.of(world, now)
    children = [expert_children(turn, mixture, settings, drain, remembered) for turn in turns]
    surge, of_routers = drain.surge(ROUTERS, mixture.routers.replicas), beside(settings, world)
    own = mixture_children(mixture, of_routers, surge)
    manifests = [*own, *_of_experts(children)]
    managed = frozenset(m.body["metadata"]["name"] for m in manifests if _is_deployment(m))
    guarded = budgets(world, mixture, drain, managed, remembered)
    policies = guards.network_policies(mixture, of_routers.namespace)
    manifests += [*guarded.manifests, *policies]
    named = [*table.experts, *(stored.experts if stored else ())]
    kept = frozenset(name for child in children for name in child.kept)
    changed = unapplied(world, manifests)
    released = reach.released(stored.epoch if stored else 0)
    gone = leaving(world, kept, named, released)
    settled = table is stored and not changed and not gone
    move = spread(world, table, reach) if settled else Move()
    reported = report(
        Outlook(world, mixture, table, turns, of_gates, admission, gates, reach, restored)
    )
    # What a table says is put down as soon as it is stored.
    written = None if table is stored else now
    idle = (wakes_at(turn.row, turn.case) for turn in turns)
    waits = (at for turn in tried for at in turn.times)
    times = (written, move.again_at, guarded.again_at, reported.again_at, *waits, *idle)
    return Plan(
        revisions=tuple(t.lineage.made for t in tried if t.lineage.made is not None),
        snapshots=unkept(stored, world.snapshots),
        locks=(*_locks(world, table), *(() if table is stored else _memories(tried))),
        table=None if table is stored else table,
        manifests=changed,
        deletes=(
            *gone,
            *move.deletes,
            *journal.dropped(world, released),
            *guards.unwanted(world, policies),
            *_pruned(world, mixture, tried),
        ),
        statuses=reported.statuses,
        notes=(
            *steps(tried),
            *_told(world, tried, reported.statuses),
            *move.notes,
            *guarded.notes,
        ),
        pods=tuple(turn.evaluator for turn in tried if turn.evaluator is not None),
        again_at=min((at for at in times if at is not None), default=None),
        sizes={turn.case.expert.meta.name: turn.size for turn in turns if turn.size is not None},
    )


def _past_routers(stored: Table, reach: Reach) -> Plan:
    """Write the stored table anew, past the epochs that routers have, and nothing else.

    They go back to no older one, so one that was put back from a backup would be served by nobody.
    Where only the view is old, the table's resourceVersion is, too, and nothing comes of it.
    """
    return Plan(table=replace(stored, epoch=reach.next_epoch))


def _of_experts(children: Iterable[Children]) -> Iterator[Manifest]:
    for child in children:
        yield from child.manifests


def _is_deployment(manifest: Manifest) -> bool:
    return bool(manifest.body["kind"] == "Deployment")


def _told(world: World, turns: tuple[Turn, ...], statuses: tuple[Status, ...]) -> Iterator[Note]:
    yield from changes(turns, statuses)
    yield from lapses(world, statuses)
    yield from resized(turns)


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


def beside(settings: Settings, world: World) -> Settings:
    """Return what routers are made by: they keep TLS for as long as a worker has it, whose template
    is frozen, also where it is disabled now."""
    needed = any(pod.secure and pod.component == WORKER for pod in world.pods)
    if needed and not settings.secure:
        return replace(settings, tls=TlsMode.PERMITTED)
    return settings
