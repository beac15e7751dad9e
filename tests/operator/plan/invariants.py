"""What must hold of every plan, whatever was observed: checked by the simulation at each pass.

`legal_change` is about tables alone: the replay of the whole operator checks by it what the API
server was given.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from moe_core.pins import pinned
from moe_core.rollout import Outcome
from moe_core.rows import ExpertRow, GateRow
from moe_core.table import Table
from moe_operator.intent import Plan
from moe_operator.labels import EVALUATOR, deployment_name
from moe_operator.reach import Reach
from moe_operator.world import World

SESSIONS = tuple(f"s{number}" for number in range(24))


def check(world: World, plan: Plan, served: Iterable[Table]) -> None:
    """Raise AssertionError where a plan is not legal; `served` are the tables in use at routers."""
    before = world.table.table if world.table else None
    if plan.table is not None:
        _legal_table(before, plan.table, world)
        _locked_before_named(world, plan)
    _gives_up_one_pod_of_a_whole_mixture(plan, world)
    _one_evaluator_of_a_dark_candidate(plan, world)
    _deletes_nothing_in_use(plan, [*served, *([before] if before else [])], world)


def _gives_up_one_pod_of_a_whole_mixture(plan: Plan, world: World) -> None:
    evaluators = {pod.name for pod in world.pods if pod.component == EVALUATOR}
    gone = {deletion.name for deletion in plan.deletes if deletion.kind == "Pod"}
    given = gone - evaluators
    if not given:
        return
    (name,) = given
    assert plan.table is None
    kept = [pod for pod in world.pods if pod.component != EVALUATOR]
    assert all(pod.ready for pod in kept), "a pod is given up while another one is missing"
    assert all(d.ready_replicas == d.replicas for d in world.deployments)
    (node,) = (pod.node for pod in world.pods if pod.name == name)
    assert sum(pod.node == node for pod in kept) > 1


def _one_evaluator_of_a_dark_candidate(plan: Plan, world: World) -> None:
    """An evaluator is only made of a candidate without weight, and one at a time."""
    evaluators = (pod for pod in world.pods if pod.component == EVALUATOR)
    running = {(pod.expert, pod.gate) for pod in evaluators if not pod.over}
    for made in plan.pods:
        labels = made.body["metadata"]["labels"]
        expert, gate = labels.get("moeops.dev/expert", ""), labels.get("moeops.dev/gate", "")
        assert world.table is not None
        table = world.table.table
        rows: list[ExpertRow | GateRow] = [r for r in table.experts if r.name == expert]
        rows += [r for r in table.gates if r.name == gate]
        (row,) = rows
        assert row.candidate is not None
        assert row.rollout is not None
        assert not row.rollout.weights, "an evaluator of a candidate that has weight"
        assert not row.rollout.evaluated, "an evaluator of what has passed"
        assert (expert, gate) not in running, "a second evaluator beside one that runs"


def _legal_table(before: Table | None, table: Table, world: World) -> None:
    if before is None:
        assert all(table.epoch > kept.epoch for kept in world.snapshots), "no epoch comes twice"
    uid = before.uid if before else ""
    ahead = max((r.epoch for r in world.routers if uid and r.table_uid == uid), default=0)
    legal_change(before, table, (expert.meta.name for expert in world.experts), ahead)
    for old, new in _changed(before, table):
        _routable_where_raised(old, new, world)
        _evaluated_where_asked_for(before, old, new, world)


def legal_change(
    before: Table | None, table: Table, experts: Iterable[str], ahead: int = 0
) -> None:
    """Raise AssertionError where a table is not legal, or may not follow the one before.

    `experts` are the names of the Expert objects that are there, `ahead` is the latest epoch that
    a router has, which is past the one before where that was put back from a backup.
    """
    last = max(before.epoch, ahead) if before is not None else 0
    assert before is None or table.epoch == last + 1, "the epoch rises by one"
    assert before is None or table.uid == before.uid
    rows = {row.expert_id: row for row in table.experts}
    assert len(rows) == len(table.experts), "one row for each id"
    for row in table.experts:
        _legal_row(row)
    _gates_fit(before, table, rows)
    _pairs_fit(table)
    if before is not None:
        _gates_keep_sessions(before, table)
    objects = set(experts)
    for old in before.experts if before else ():
        new = rows.get(old.expert_id)
        if old.name in objects and (new is None or new.name == old.name):
            assert new is not None, f"{old.expert_id} lost its row"
            assert before is not None
            _legal_step(old, new, last)


def _gates_fit(before: Table | None, table: Table, rows: Mapping[str, ExpertRow]) -> None:
    """Each gate's experts have rows; a gate that comes finds them serving all its layers."""
    known = {gate.name: gate for gate in before.gates} if before else {}
    for gate in table.gates:
        for expert_id in gate.experts:
            assert expert_id in rows, f"gate {gate.name} names {expert_id}, which has no row"
            if known.get(gate.name) != gate:
                row = rows[expert_id]
                assert row.stable is not None, f"gate {gate.name} came before {expert_id} serves"
                assert set(gate.layers) <= set(row.layers), f"{expert_id} lacks layers"


def _changed(before: Table | None, table: Table) -> Iterator[tuple[ExpertRow, ExpertRow]]:
    for old in before.experts if before else ():
        new = table.expert(old.expert_id)
        if new is not None and new.name == old.name and new.rollout is not None:
            yield old, new


def _pairs_fit(table: Table) -> None:
    """No session on a gate beside a version that it does not accept, pin by pin."""
    for gate in table.gates:
        for expert_id in {e for variant in gate.named for e in variant.accepts}:
            row = table.expert(expert_id)
            assert row is not None
            for variant, version in {*_pins(gate, row, table.epoch), *_draws(gate, row)}:
                names = dict(variant).get(expert_id, (version,))
                beside = f"a session of {gate.name} is beside {expert_id} {version}: {names}"
                assert version in names, beside


# What a variant accepts, by expert, and the name of a version.
Pinned = tuple[tuple[tuple[str, tuple[str, ...]], ...], str]


def _pins(gate: GateRow, row: ExpertRow, epoch: int) -> Iterator[Pinned]:
    """Give what sessions are on, of each epoch in which they can have begun."""
    rollouts = [r for r in (gate.rollout, row.rollout) if r is not None]
    known = {w.epoch for rollout in rollouts for w in rollout.weights}
    for began in {1, epoch, *known, *(e - 1 for e in known)}:
        for session in SESSIONS:
            version = pinned(row, session, began)
            if version is not None:
                accepts = pinned(gate, session, began).accepts
                yield tuple(accepts.items()), version.version


def _draws(gate: GateRow, row: ExpertRow) -> Iterator[Pinned]:
    """Give what a session can be on where two draws decide: every version with every other."""
    salts = {rollout.salt for rollout in (gate.rollout, row.rollout) if rollout is not None}
    two_sided = row.candidate or row.previous, gate.candidate or gate.previous
    if len(salts) == 1 and all(two_sided):
        return
    for variant in gate.serving:
        for version in row.named:
            yield tuple(variant.accepts.items()), version.version


def _legal_row(row: ExpertRow) -> None:
    named = {version.sha256 for version in row.named}
    assert len(named) == len(row.named), "no version twice in a row"
    assert not named & set(row.revoked), "what is revoked is not named"
    assert len(row.revoked) <= 8
    rollout = row.rollout
    if rollout is None:
        assert not named, "what is served has a rollout"
        return
    weights, epochs = [w.percent for w in rollout.weights], [w.epoch for w in rollout.weights]
    trial = weights[: weights.index(0)] if 0 in weights else weights
    assert trial == sorted(trial), "weights never fall within a rollout"
    assert trial == weights or rollout.outcome.ended, "no session is turned away while it lasts"
    assert epochs == sorted(set(epochs)), "weights are in order of epochs"
    if row.candidate is not None:
        assert not rollout.outcome.ended, "a candidate is only there while its rollout is"
        assert row.candidate == rollout.target
        assert row.stable is not None
        assert row.previous is None, "no candidate while sessions of another rollout are kept"
    elif not rollout.outcome.ended:
        assert not weights, "no weight without a candidate"


def _gates_keep_sessions(before: Table, table: Table) -> None:
    known = {gate.name: gate for gate in before.gates}
    for gate in table.gates:
        if gate.name in known:
            _sessions_stay(known[gate.name], gate, before.epoch)


def _legal_step(old: ExpertRow, new: ExpertRow, epoch: int) -> None:
    """One row may become another; `epoch` is that of the table before."""
    assert old.stable is None or new.stable is not None, "stable is never lost"
    if old.rollout is None or new.rollout is None:
        return
    same = new.rollout.salt == old.rollout.salt
    if same:
        kept = new.rollout.weights[: len(old.rollout.weights)]
        assert kept == old.rollout.weights, "what was a session's weight stays so"
    if same and old.rollout.outcome.ended:
        assert new.rollout.step == old.rollout.step
        assert new.candidate is None
    if old.previous is not None and new.previous is None and new.rollout.outcome.ended:
        assert new.rollout.outcome in (Outcome.PROMOTED, Outcome.ROLLED_BACK)
    _sessions_stay(old, new, epoch)


def _sessions_stay(old: ExpertRow | GateRow, new: ExpertRow | GateRow, epoch: int) -> None:
    """A live session keeps its version, unless that is revoked or no longer there."""
    for began in range(max(1, epoch - 6), epoch + 1):
        for session in ("a", "b", "c", "d", "e", "f", "g", "h"):
            before, after = pinned(old, session, began), pinned(new, session, began)
            if before is not None and (after is None or before.sha256 != after.sha256):
                kept = {version.sha256 for version in new.named}
                assert before.sha256 not in kept, f"session {session} was moved without cause"


def _routable_where_raised(old: ExpertRow, new: ExpertRow, world: World) -> None:
    """No weight without capacity: every router reaches the version before more sessions see it."""
    if raised(old, new):
        assert new.candidate is not None
        assert world.table is not None
        now = max(report.at for report in world.routers)
        reach = Reach.of(world, now)
        assert reach.workers(new.candidate.sha256) >= 1, "weight without a routable candidate"
        assert reach.ready


def _evaluated_where_asked_for(
    before: Table | None, old: ExpertRow, new: ExpertRow, world: World
) -> None:
    """No first weight before the golden set has passed, where there is one.

    What is tried out with a gate has passed it with the gate.
    """
    asked = world.mixture is not None and world.mixture.evaluation is not None
    first = old.candidate is not None and new.candidate is not None and new.rollout is not None
    if asked and first and old.rollout is not None and not old.rollout.weights:
        assert before is not None
        assert new.rollout is not None
        gates = [gate.rollout for gate in before.gates if gate.rollout is not None]
        led = [r for r in gates if r.salt == old.rollout.salt] or [old.rollout]
        assert not new.rollout.weights or any(r.evaluated for r in led), "weight before"


def raised(old: ExpertRow, new: ExpertRow) -> bool:
    """Return whether more sessions see the candidate than before."""
    before = old.rollout.weight if old.rollout and old.candidate else 0
    return new.candidate is not None and new.rollout is not None and new.rollout.weight > before


def _locked_before_named(world: World, plan: Plan) -> None:
    assert plan.table is not None
    listed = {expert_id for gate in plan.table.gates for expert_id in gate.experts}
    locked = {status.name for status in plan.locks if status.status.get("inUse")}
    for expert in world.experts:
        row = plan.table.expert(expert.expert_id)
        if expert.expert_id in listed and row is not None and row.name == expert.meta.name:
            in_use = expert.meta.status.get("inUse") is True or expert.meta.name in locked
            assert in_use, f"{expert.meta.name} is named before it is locked"


def _deletes_nothing_in_use(plan: Plan, tables: Iterable[Table], world: World) -> None:
    """No pods go that a table in use anywhere names, as long as their Expert is there."""
    if world.mixture is None:
        return
    named = {
        deployment_name(row.name, version.sha256)
        for table in tables
        for row in table.experts
        for version in row.named
    }
    gone = {deletion.name for deletion in plan.deletes} & named
    assert not gone, f"{gone} would go while a table names them"
