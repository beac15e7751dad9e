"""What the operator tells Prometheus: of its engine, of objects, and of rollouts and their ends."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest

from moe_core.process_metrics import FAMILIES as PROCESS
from moe_core.rollout import Outcome, Rollout
from moe_core.table import Table
from moe_operator import metrics as m
from moe_operator.cache import Cache, Key
from moe_operator.cluster import ApiError, Conflict, Unavailable
from moe_operator.collect import OperatorMetrics
from moe_operator.drifts import Drifts
from moe_operator.ends import End, Ends, ended
from moe_operator.engine import Engine
from moe_operator.kinds import Body
from moe_operator.queue import WorkQueue
from moe_operator.reason import Reason
from moe_operator.spec import Tried
from moe_operator.world import Revision
from tests.operator.engine.lived import again
from tests.operator.engine.play import Play
from tests.operator.engine.scenarios import good, good_then_bad, version
from tests.support.promtool import check_metrics
from tests.support.scrape import read
from tests.support.tables import expert, gate, table
from tests.support.tables import version as artifact

TINY = Key("default", "tiny")
OF = {"mixture_namespace": "default", "mixture": "tiny"}
FEW = {"minReplicas": 2, "maxReplicas": 2, "targetUtilizationPercent": 60}
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def on_trial(spec: Body) -> bool:
    """Whether some sessions see the second version of e0."""
    rollout = spec["experts"][0].get("rollout") or {}
    return bool(rollout.get("outcome") == "Progressing" and rollout["weights"])


@dataclass
class Held:
    """A lease, or none."""

    leading: bool

    def leads(self) -> bool:
        return self.leading


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_queue_counts_what_it_was_given_and_how_long_that_took() -> None:
    clock = Clock()
    queue = WorkQueue[str](clock)
    queue.add("a")
    queue.add("a")
    queue.add("b")
    assert (queue.adds, queue.depth, queue.active) == (2, 2, 0)
    clock.now = 3.0
    assert queue.poll() == "a"
    clock.now = 5.0
    queue.failed("a", at_least_s=1.0)
    assert (queue.retries, queue.depth, queue.active) == (1, 1, 0)
    assert (queue.waited.sum, queue.worked.sum) == (3.0, 2.0)
    clock.now = 6.0
    assert queue.poll() == "b"
    assert queue.poll() == "a"  # due again
    assert (queue.adds, queue.waited.sum) == (3, 9.0)


async def test_looks_are_counted_by_how_they_ended() -> None:
    clock = Clock()
    engine = Engine(Cache(), lambda: NOW, WorkQueue(clock))
    ends: list[Exception | datetime | None] = [
        None,
        NOW + timedelta(seconds=7),
        Conflict("seen another"),
        ApiError("internal error"),
        ValueError("a bug"),
    ]

    async def look(key: Key) -> datetime | None:
        end = ends.pop(0)
        if isinstance(end, Exception):
            raise end
        return end

    while ends:
        engine.add([TINY])
        assert engine.queue.poll() == TINY
        await engine.step(TINY, look)

    seen = read(OperatorMetrics(engine, Ends(), Drifts(), "", None))

    results = seen.of("controller_runtime_reconcile_total", controller="mixture")
    assert results == {("success",): 1, ("requeue_after",): 1, ("requeue",): 1, ("error",): 2}
    assert seen.value("controller_runtime_reconcile_errors_total", controller="mixture") == 2
    queue = {"name": "mixture", "controller": "mixture"}
    assert seen.value("workqueue_adds_total", **queue) == 5
    assert seen.value("workqueue_retries_total", **queue) == 3
    assert seen.value("workqueue_queue_duration_seconds_count", **queue) == 5
    assert seen.value("workqueue_work_duration_seconds_count", **queue) == 5
    assert "leader_election_master_status" not in seen.names


async def test_a_mixture_at_rest_is_told_as_its_objects_are(served: Play) -> None:
    seen = read(served.metrics(Held(True)))

    spec = served.api.objects[
        next(place for place in served.api.objects if place[0].name == "RoutingTable")
    ]["spec"]
    assert seen.value("moeops_table_epoch", **OF) == spec["epoch"]
    ready = {("Expert", "tiny-e0"): 1, ("Expert", "tiny-e1"): 1}
    ready |= {("Gate", "tiny-gate"): 1, ("Mixture", "tiny"): 1}
    assert seen.of("moeops_object_ready", **OF) == ready
    assert not any(seen.of("moeops_object_degraded", **OF).values())
    assert seen.of("moeops_object_stuck") == {}
    pods = {("e0", "v1"): 1, ("e1", "v1"): 1}
    assert seen.of("moeops_version_replicas_ready", **OF) == pods
    assert seen.of("moeops_version_replicas_wanted", **OF) == pods
    assert seen.of("moeops_expert_replicas_wanted", **OF) == {("e0",): 1, ("e1",): 1}
    assert seen.of("moeops_expert_replicas_ready", **OF) == {("e0",): 1, ("e1",): 1}
    assert seen.value("moeops_router_replicas_ready", **OF) == 1
    assert seen.value("leader_election_master_status", name="moeops-operator") == 1
    assert "moeops_rollout_step" not in seen.names
    assert "moeops_rollouts_ended_total" not in seen.names
    own = [name for name, _ in seen.samples if name.startswith("moeops_")]
    # As the reference says.
    assert len(own) == 15 + 2 * 6 + 1
    assert len(seen.samples) - len(own) == 45


async def test_where_its_load_decides_an_expert_wants_what_that_asks_for(served: Play) -> None:
    play = await again(served)
    await play.put(version("v1", replicas=1, autoscaling=FEW))
    await play.rest()
    seen = read(play.metrics(Held(True)))
    assert seen.of("moeops_expert_replicas_wanted", **OF) == {("e0",): 2, ("e1",): 1}


async def test_who_waits_tells_of_no_object(served: Play) -> None:
    """Two operators run; what both told of an expert would be twice as many replicas."""
    seen = read(served.metrics(Held(False)))

    assert seen.value("leader_election_master_status", name="moeops-operator") == 0
    assert not {name for name in seen.names if name.startswith("moeops_")}


async def test_a_rollout_is_told_while_it_goes_on_and_its_end_afterwards(served: Play) -> None:
    play = served.copy()
    await play.operate(True)
    play.clients.ask = True
    await play.put(version("v2"))
    await play.until(on_trial)

    at_rest, going = read(served.metrics()), read(play.metrics())
    assert 5 + 2 <= len(going.samples) - len(at_rest.samples) <= 19  # as the reference says
    own = {**OF, "kind": "Expert", "name": "tiny-e0", "version": "v2"}
    assert going.value("moeops_rollout_weight_ratio", **own) == 0.25
    assert going.value("moeops_rollout_step", **own) == 1
    assert going.value("moeops_rollout_steps", **own) == 2
    assert going.value("moeops_rollout_paused", **own) == 0
    began = going.value("moeops_rollout_step_began_timestamp_seconds", **own)
    assert 0 <= play.now().timestamp() - began < 60
    assert set(going.of("moeops_version_replicas_ready", **OF, expert="e0")) == {("v1",), ("v2",)}
    rollouts = going.of("moeops_rollouts", **OF, kind="Expert")
    assert rollouts[("Progressing",)] == 1

    await good(play)
    over = read(play.metrics())
    assert "moeops_rollout_step" not in over.names
    assert over.of("moeops_rollouts_ended_total", **OF) == {("Expert", "Promoted", "Promoted"): 1}
    took = {"kind": "Expert", "outcome": "Promoted", **OF}
    assert over.value("moeops_rollout_duration_seconds_count", **took) == 1


async def test_an_end_is_counted_once_whatever_fails_beside_it(served: Play) -> None:
    lived = await again(served)
    await good(lived)
    for refused in range(len(served.writes), len(lived.writes)):
        play = await again(served)
        play.refuse, play.refuse_after = Unavailable("internal error"), refused
        await good(play)
        seen = read(play.metrics())
        told = seen.of("moeops_rollouts_ended_total", **OF)
        assert told == {("Expert", "Promoted", "Promoted"): 1}, lived.writes[refused]


async def test_what_was_taken_back_has_its_reason(served: Play) -> None:
    play = served.copy()
    await play.operate(True)
    await good_then_bad(play)

    seen = read(play.metrics())

    assert seen.of("moeops_rollouts_ended_total", **OF) == {
        ("Expert", "Promoted", "Promoted"): 1,
        ("Expert", "RolledBack", "RolledBack"): 1,
    }
    stuck = seen.of("moeops_object_stuck", **OF)
    assert stuck == {("Expert", "tiny-e0", "RolledBack"): 1}


async def test_all_that_is_told_is_described_and_nothing_is_wrong(served: Play) -> None:
    play = served.copy()
    await play.operate(True)
    play.clients.ask = True
    await play.put(version("v2"))
    await play.until(on_trial)
    play.clients.ask = False
    seen = read(play.metrics(Held(True)), om=False)

    described = {name: set(f.labels) for f in (*m.FAMILIES, *PROCESS) for name in f.names}
    for name, labels in seen.samples:
        assert {key for key, _ in labels} - {"le"} == described[name], name
    assert check_metrics(seen.text) == ""


A, B = artifact("v1"), artifact("v2")


def rolling(outcome: Outcome, revision: int = 2, reason: str = "") -> Table:
    began = "2026-01-01T00:00:00Z"
    rollout = Rollout(revision, B, 1, began, outcome, reason, "salt")
    row = replace(expert("e0", A), rollout=rollout)
    return table([row], [gate(["e0"])])


REVISION = Revision("e0", 2, B, {}, created="2026-01-01T00:00:00Z")
LATER = NOW + timedelta(seconds=90)


@pytest.mark.parametrize(
    ("before", "after", "revisions", "ends"),
    [
        pytest.param(
            rolling(Outcome.PROGRESSING),
            rolling(Outcome.ROLLED_BACK, reason="DeadlineExceeded: pods are not ready"),
            [REVISION],
            [End(Tried.EXPERT, Outcome.ROLLED_BACK, Reason.DEADLINE_EXCEEDED, 90.0)],
            id="taken back",
        ),
        pytest.param(
            rolling(Outcome.PAUSED),
            rolling(Outcome.PROMOTED),
            [],
            [End(Tried.EXPERT, Outcome.PROMOTED, Reason.PROMOTED, None)],
            id="promoted, and nobody knows since when it was wanted",
        ),
        pytest.param(
            rolling(Outcome.PROMOTED), rolling(Outcome.PROMOTED), [], [], id="over before"
        ),
        pytest.param(
            rolling(Outcome.PROGRESSING), rolling(Outcome.PAUSED), [], [], id="goes on"
        ),
        pytest.param(
            rolling(Outcome.PROGRESSING), table([], [gate(["e0"])]), [], [], id="expert gone"
        ),
        pytest.param(None, rolling(Outcome.PROMOTED), [], [], id="no table before"),
        pytest.param(
            table([replace(expert("e0"), rollout=rolling(Outcome.PROGRESSING).experts[0].rollout)],
                  []),
            rolling(Outcome.PROMOTED),
            [],
            [],
            id="a first version",
        ),
    ],
)  # fmt: skip
def test_ends_are_those_of_rollouts_that_were_under_way(
    before: Table | None, after: Table, revisions: list[Revision], ends: list[End]
) -> None:
    assert list(ended(before, after, revisions, LATER)) == ends


def test_names_are_told_once() -> None:
    names = [name for family in m.FAMILIES for name in family.names]

    assert len(names) == len(set(names))
