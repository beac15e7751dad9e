"""Drains: the only pod is replaced first, one of several may go, and nothing blocks for ever."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from moe_operator.drain import Budget, Drain
from tests.operator.plan.bodies import expert, gate, mixture, override, sha, steps
from tests.operator.plan.looks import deployments, row, until_weight
from tests.operator.plan.simulation import Behaviour, Pod, Simulation, node

V1, V2 = sha("e0", "v1"), sha("e0", "v2")
COMES_UP_S = 20  # as the Experts of these tests say


@dataclass(slots=True)
class Cluster(Simulation):
    """Two nodes or more; `draining` are asked to give up their pods every second."""

    draining: set[str] = field(default_factory=set)
    evicted: list[str] = field(default_factory=list)

    def tick(self) -> None:
        for name in sorted(self.draining):
            for pod in [p for p in self.pods.values() if p.node == name]:
                if self._lets(pod):
                    del self.pods[pod.name]
                    self.evicted.append(pod.name)
        Simulation.tick(self)

    def _lets(self, pod: Pod) -> bool:
        """Decide as the API server does: by the pods that are ready and those that must be."""
        own = [p for p in self.pods.values() if p.deployment == pod.deployment]
        spec: dict[str, Any] = self.budgets[pod.deployment].body["spec"]
        if not pod.ready:
            return bool(spec["unhealthyPodEvictionPolicy"] == "AlwaysAllow")
        wanted = self.deployments[pod.deployment].replicas
        away = {1: 1, "100%": wanted}.get(spec.get("maxUnavailable"), 0)
        needed: int = spec.get("minAvailable", wanted - away)
        return sum(p.ready for p in own) - 1 >= needed

    def cordon(self, name: str) -> None:
        seen = self.nodes[name]
        self.nodes[name] = replace(seen, schedulable=False, cordoned=True, cordoned_since=self.now)

    def drain(self, name: str) -> None:
        self.cordon(name)
        self.draining.add(name)

    def uncordon(self, name: str) -> None:
        self.draining.discard(name)
        self.nodes[name] = node(name)


def served(**spec: Any) -> Cluster:
    """Return a mixture on two nodes, with one pod of each expert and two routers."""
    sim = Cluster(nodes={"n1": node("n1"), "n2": node("n2")})
    sim.put("Mixture", mixture(routers={"replicas": 2}))
    sim.put("Expert", expert("e0", **spec))
    sim.put("Expert", expert("e1"))
    sim.put("Gate", gate(["e0", "e1"]))
    sim.run(15)
    return sim


def of_e0(sim: Simulation) -> list[Pod]:
    return [pod for pod in sim.pods.values() if pod.deployment.startswith("e0-")]


def budget(sim: Simulation, version: str = V1) -> dict[str, Any]:
    spec = sim.budgets[f"e0-{version[:10]}"].body["spec"]
    return {k: v for k, v in spec.items() if k in ("minAvailable", "maxUnavailable")}


def told(sim: Simulation, reason: str) -> list[str]:
    return [note.message for note in sim.told if note.reason == reason]


def always_served(sim: Cluster, seconds: int) -> None:
    for _ in range(seconds):
        sim.tick()
        assert any(pod.ready for pod in of_e0(sim)), "no pod serves e0"
        assert any(p.ready for n, p in sim.pods.items() if p.deployment == "tiny-router")


def test_the_only_pod_is_replaced_elsewhere_before_it_goes() -> None:
    sim = served()
    (pod,) = of_e0(sim)
    sim.drain(pod.node)
    always_served(sim, 15)
    assert pod.name in sim.evicted
    (left,) = of_e0(sim)
    assert left.node != pod.node
    assert deployments(sim) == {V1: 1}
    assert told(sim, "Draining")[0].startswith(pod.name)
    assert told(sim, "DrainLetThrough") == []


def test_a_drained_node_keeps_no_pod_and_afterwards_nothing_is_written() -> None:
    sim = served()
    sim.drain("n1")
    always_served(sim, 40)
    assert {pod.node for pod in sim.pods.values()} == {"n2"}
    written = len(sim.writes)
    sim.run(30)
    assert sim.writes[written:] == []


def test_a_node_that_is_only_cordoned_keeps_its_pod_until_it_is_drained() -> None:
    sim = served()
    (pod,) = of_e0(sim)
    sim.cordon(pod.node)
    sim.run(3 * COMES_UP_S)
    assert len(of_e0(sim)) == 2
    assert budget(sim) == {"minAvailable": 1}, "what came first is guarded"
    sim.uncordon(pod.node)
    sim.run(3)
    assert of_e0(sim) == [pod]


def test_of_several_one_at_a_time_goes_and_no_other_comes_first() -> None:
    sim = served(replicas=2)
    assert budget(sim) == {"maxUnavailable": 1}
    sim.drain("n1")
    always_served(sim, 15)
    assert {pod.node for pod in of_e0(sim)} == {"n2"}
    assert deployments(sim) == {V1: 2}


def test_where_there_is_no_room_a_drain_waits_only_for_as_long_as_pods_may_come_up() -> None:
    sim = served()
    (pod,) = of_e0(sim)
    other = "n2" if pod.node == "n1" else "n1"
    sim.full = {other}
    sim.drain(pod.node)
    sim.run(COMES_UP_S - 2)
    assert pod in of_e0(sim)
    assert [p.node for p in of_e0(sim) if p is not pod] == [""]
    sim.run(6)
    assert pod.name in sim.evicted
    assert len(told(sim, "DrainLetThrough")) >= 1
    sim.full = set()
    sim.run(10)
    assert [p.node for p in of_e0(sim)] == [other]
    assert budget(sim) == {"minAvailable": 1}


def test_the_second_of_two_is_let_through_when_nothing_comes_for_the_first() -> None:
    sim = served(replicas=2)
    for pod in of_e0(sim):
        pod.node = "n1"
    sim.full = {"n2"}
    sim.drain("n1")
    sim.run(COMES_UP_S - 2)
    assert len([p for p in of_e0(sim) if p.ready]) == 1
    sim.run(6)
    assert all(not p.node for p in of_e0(sim))


def test_where_nodes_may_not_be_read_a_budget_holds_up_nobody() -> None:
    sim = served()
    sim.nodes = {}
    sim.operate()
    assert budget(sim) == {"maxUnavailable": 1}


def test_a_candidate_is_replaced_first_too_and_its_rollout_goes_on() -> None:
    sim = served(rollout={"steps": steps(50, 100, pause=30)})
    sim.want("e0", "v2")
    until_weight(sim, 50)
    (pod,) = (p for p in of_e0(sim) if p.deployment.endswith(V2[:10]))
    sim.drain(pod.node)
    for _ in range(20):
        sim.tick()
        ready = [p for p in of_e0(sim) if p.ready and p.deployment.endswith(V2[:10])]
        assert ready, "no pod serves the candidate"
    assert row(sim).candidate is not None
    assert deployments(sim) == {V1: 1, V2: 1}


def test_what_lost_and_is_only_warm_holds_up_no_drain() -> None:
    sim = served(rollout={"steps": steps(50, pause=30), "scaleDownDelaySeconds": 60})
    sim.want("e0", "v2")
    until_weight(sim, 50)
    sim.put("Override", override("stop", "e0", "Abort", revision=2))
    sim.run(3)
    assert budget(sim, V2) == {"maxUnavailable": 1}


def test_a_load_does_not_take_the_pod_that_comes_first_for_its_own() -> None:
    scaling = {"minReplicas": 1, "maxReplicas": 4, "targetUtilizationPercent": 50}
    sim = served(autoscaling=scaling)
    (pod,) = of_e0(sim)
    sim.cordon(pod.node)
    sim.run(10)
    assert len(of_e0(sim)) == 2
    assert sim.bodies["Expert", "e0"]["status"]["autoscaling"]["replicas"] == 1


def test_a_budget_goes_with_its_deployment() -> None:
    sim = served()
    assert set(sim.budgets) == set(sim.deployments)
    sim.want("e0", "v2")
    sim.run(40)
    assert set(sim.budgets) == set(sim.deployments)
    (owner,) = sim.budgets[f"e0-{V2[:10]}"].body["metadata"]["ownerReferences"]
    assert owner["uid"] == sim.deployments[f"e0-{V2[:10]}"].uid


def test_a_routers_only_pod_is_replaced_first() -> None:
    sim = served()
    sim.put("Mixture", mixture(routers={"replicas": 1}))
    sim.run(10)
    (pod,) = (p for p in sim.pods.values() if p.deployment == "tiny-router")
    sim.drain(pod.node)
    always_served(sim, 20)
    assert pod.name in sim.evicted


@settings(max_examples=25, deadline=None)
@given(
    drained=st.lists(st.sampled_from(["n1", "n2", "n3"]), min_size=1, max_size=4),
    replicas=st.integers(1, 3),
    starts=st.booleans(),
)
def test_every_drain_ends_and_none_takes_the_last_pod_while_others_come_up(
    drained: list[str], replicas: int, starts: bool
) -> None:
    sim = served(replicas=replicas)
    sim.find_node("n3")
    sim.behaviours[V1] = Behaviour(starts=starts)
    for name in drained:
        sim.drain(name)
        for _ in range(replicas * (COMES_UP_S + 10)):
            sim.tick()
            assert not starts or any(pod.ready for pod in of_e0(sim))
        assert not [pod for pod in sim.pods.values() if pod.node == name], f"{name} is not empty"
        sim.uncordon(name)


def test_a_node_without_a_stamp_yet_is_waited_for() -> None:
    sim = served()
    (pod,) = of_e0(sim)
    sim.cordon(pod.node)
    sim.nodes[pod.node] = replace(sim.nodes[pod.node], cordoned_since=None)
    later = sim.now + timedelta(hours=1)
    drain = Drain.of(sim.world(), later)
    guard = drain.guard(("worker", "e0", V1[:10]), 1, COMES_UP_S, True)
    assert (guard.budget, guard.until) == (Budget.LAST_STAYS, None)
