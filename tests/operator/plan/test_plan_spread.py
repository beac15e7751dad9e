"""Spread: pods that fled to one node are on two again, one at a time, and never for nothing."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from moe_core.table import Failover, Table
from moe_operator.intent import Delete
from moe_operator.reach import Reach
from moe_operator.router_report import RouterReport
from moe_operator.spread import spread
from moe_operator.world import DeploymentSeen, NodeSeen, PodSeen, StoredTable, World
from tests.operator.plan.bodies import expert, gate, mixture
from tests.operator.plan.simulation import START, Simulation, node

# When the node came back, long after everything began.
BACK = START + timedelta(hours=1)
FLED = BACK - timedelta(minutes=5)


def after(seconds: float, begin: datetime = BACK) -> datetime:
    return begin + timedelta(seconds=seconds)


def router(name: str, on: str, created: datetime = FLED) -> PodSeen:
    return PodSeen(
        name=name,
        uid=f"uid-{name}",
        component="router",
        expert="",
        digest="",
        node=on,
        address="10.0.0.1",
        ready=True,
        deleting=False,
        problem="",
        resource_version="7",
        created=created,
        over=False,
        node_selector={},
    )


CROWDED = (router("r1", "n1", FLED - timedelta(days=1)), router("r2", "n1"))
N1, N2 = node("n1"), node("n2", since=BACK)


def world(
    pods: tuple[PodSeen, ...] = CROWDED, nodes: tuple[NodeSeen, ...] = (N1, N2), ready: int = 2
) -> World:
    table = Table("tiny", "t", 3, 64, 2, "Float32", "", Failover((), 0), (), ())
    deployment = DeploymentSeen("tiny-router", "d", "5", "router", "", "", 2, ready, "", 0)
    reports = tuple(
        RouterReport(pod.name, pod.name, BACK, "t", 3, (), {}, {}) for pod in pods if pod.ready
    )
    return World(
        "models", "tiny", None, StoredTable(table, "9"), (), (), (), (), (deployment,), pods,
        reports, (), nodes=nodes,
    )  # fmt: skip


def given_up(seen: World, now: datetime) -> tuple[Delete, ...]:
    assert seen.table is not None
    return spread(seen, seen.table.table, Reach.of(seen, now)).deletes


def test_the_younger_pod_is_given_up_as_it_was_seen_and_it_is_told() -> None:
    seen = world()
    assert seen.table is not None
    move = spread(seen, seen.table.table, Reach.of(seen, after(10)))
    assert move.deletes == (Delete("Pod", "r2", "uid-r2", "7"),)
    assert [(note.kind, note.reason, note.message) for note in move.notes] == [
        ("Mixture", "Moved", "r2 is moved: 2 replicas were on n1 while n2 had none")
    ]


def test_a_node_that_has_just_come_back_may_go_again() -> None:
    seen = world()
    assert seen.table is not None
    move = spread(seen, seen.table.table, Reach.of(seen, after(9)))
    assert (move.deletes, move.again_at) == ((), after(10))


STARTING = replace(CROWDED[1], ready=False)
SELECTIVE = tuple(replace(pod, node_selector={"gpu": "yes"}) for pod in CROWDED)


@pytest.mark.parametrize(
    "seen",
    [
        pytest.param(world(nodes=()), id="nodes may not be read"),
        pytest.param(world(nodes=(N1,)), id="there is one node"),
        pytest.param(world(nodes=(N1, replace(N2, ready=False))), id="the other is lost"),
        pytest.param(world(nodes=(N1, replace(N2, schedulable=False))), id="it takes no pods"),
        pytest.param(world(nodes=(N1, replace(N2, ready_since=None))), id="it was never ready"),
        pytest.param(world(SELECTIVE), id="it is not of the nodes that were selected"),
        pytest.param(world((CROWDED[0], router("r2", "n2"))), id="they are on two nodes"),
        pytest.param(world((CROWDED[0], STARTING), ready=1), id="one is not ready"),
        pytest.param(world(CROWDED[:1], ready=1), id="one is missing"),
        pytest.param(world(CROWDED, ready=1), id="the Deployment knows of one"),
        pytest.param(
            world((*CROWDED, replace(router("r3", "n1"), ready=False))), id="one is too many"
        ),
    ],
)
def test_nothing_is_given_up(seen: World) -> None:
    assert given_up(seen, after(3600)) == ()


@pytest.mark.parametrize(
    "extra",
    [
        pytest.param(replace(router("r0", "n2"), ready=False, deleting=True), id="one that goes"),
        pytest.param(replace(router("r0", "n2"), ready=False, over=True), id="one that is over"),
    ],
)
def test_pods_that_are_no_more_do_not_count(extra: PodSeen) -> None:
    assert [gone.name for gone in given_up(world((*CROWDED, extra)), after(30))] == ["r2"]


def test_a_node_is_taken_that_has_what_was_selected() -> None:
    gpu = replace(node("n3", since=BACK), labels={"gpu": "yes"})
    assert [gone.name for gone in given_up(world(SELECTIVE, (N1, N2, gpu)), after(30))] == ["r2"]


@pytest.mark.parametrize(
    ("created", "due"),
    [
        pytest.param(-300, 10, id="it fled long before the node came back"),
        pytest.param(-5, 55, id="it fled a moment before"),
        pytest.param(15, 75, id="tried once: a minute"),
        pytest.param(80, 160, id="tried again: as long as it took"),
        pytest.param(7 * 86400, 7 * 86400 + 6 * 3600, id="never rarer than every six hours"),
    ],
)
def test_a_scheduler_that_had_the_choice_is_asked_ever_more_rarely(created: int, due: int) -> None:
    seen = world((CROWDED[0], router("r2", "n1", after(created))))
    assert seen.table is not None
    early = spread(seen, seen.table.table, Reach.of(seen, after(due - 1)))
    assert (early.deletes, early.again_at) == ((), after(due))
    assert len(given_up(replace(seen, routers=_now(seen, after(due))), after(due))) == 1


def _now(seen: World, now: datetime) -> tuple[RouterReport, ...]:
    return tuple(replace(report, at=now) for report in seen.routers)


def test_routers_that_lag_are_waited_for() -> None:
    seen = world()
    lagging = (replace(seen.routers[0], epoch=2), seen.routers[1])
    assert given_up(replace(seen, routers=lagging), after(30)) == ()


# The same in a cluster.


def replicated(replicas: int = 2) -> Simulation:
    """Return a mixture on two nodes, two of everything."""
    sim = Simulation(nodes={"n1": node("n1"), "n2": node("n2")})
    sim.put("Mixture", mixture(routers={"replicas": 2}))
    for name in ("e0", "e1", "e2"):
        sim.put("Expert", expert(name, replicas=replicas))
    sim.put("Gate", gate(["e0", "e1", "e2"]))
    return sim.run(100)


def placed(sim: Simulation) -> dict[str, list[str]]:
    """Return the nodes of each Deployment's pods."""
    return {
        name: sorted(pod.node for pod in sim.pods.values() if pod.deployment == name)
        for name in sim.deployments
    }


def moves(sim: Simulation) -> list[str]:
    return [note.message for note in sim.told if note.reason == "Moved"]


def test_after_a_lost_node_is_back_everything_is_on_two_nodes_again() -> None:
    sim = replicated()
    assert set(map(tuple, placed(sim).values())) == {("n1", "n2")}
    sim.lose_node("n2")
    sim.run(100)
    assert set(map(tuple, placed(sim).values())) == {("n1", "n1")}
    sim.find_node("n2")
    sim.run(9)
    assert moves(sim) == []
    sim.run(60)
    assert set(map(tuple, placed(sim).values())) == {("n1", "n2")}
    assert len(moves(sim)) == 4, "each Deployment gave up one pod"
    assert all(reports.epoch == sim.stored.table.epoch for reports in sim.world().routers)  # type: ignore[union-attr]
    sim.run(300)
    assert len(moves(sim)) == 4


def test_a_rollout_keeps_its_experts_pods_where_they_are() -> None:
    sim = replicated()
    sim.lose_node("n2")
    sim.run(20)
    sim.want("e0", "v2")
    sim.traffic = 0  # it stays in its first step
    sim.run(100)
    sim.find_node("n2")
    sim.run(100)
    assert {name[:2] for name, nodes in placed(sim).items() if nodes == ["n1", "n1"]} == {"e0"}
    sim.traffic = 10
    sim.run(120)
    assert set(map(tuple, placed(sim).values())) == {("n1", "n2")}


def test_where_the_scheduler_cannot_do_better_it_is_soon_left_alone() -> None:
    sim = replicated()
    sim.lose_node("n2")
    sim.full = {"n2"}
    sim.run(100)
    sim.find_node("n2")
    sim.run(1500)
    assert set(map(tuple, placed(sim).values())) == {("n1", "n1")}
    each = len(moves(sim)) / 4
    assert each <= 6, "after 10 s, and then after 1, 2, 4, 8 and 16 minutes or so"
    seen = len(moves(sim))
    sim.run(600)
    assert len(moves(sim)) - seen <= 4


@pytest.mark.parametrize(
    "lame",
    [
        pytest.param({"schedulable": False}, id="cordoned"),
        pytest.param({"ready": False}, id="not ready"),
    ],
)
def test_nothing_is_given_up_for_a_node_that_takes_nothing(lame: dict[str, bool]) -> None:
    sim = replicated()
    sim.lose_node("n2")
    sim.run(100)
    sim.nodes["n2"] = replace(node("n2", since=sim.now), **lame)  # type: ignore[arg-type]
    writes = len(sim.writes)
    sim.run(300)
    assert moves(sim) == []
    assert not [write for write in sim.writes[writes:] if write.startswith("delete")]
