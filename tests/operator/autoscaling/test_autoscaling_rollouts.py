"""Replicas that follow a load in the middle of whatever else happens to an expert."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from moe_core.rollout import Outcome
from tests.operator.autoscaling.loaded import TARGET, Cluster, scaled
from tests.operator.plan.bodies import gate, override, sha
from tests.operator.plan.looks import condition, deployments, outcome, row, stable, until_weight
from tests.operator.plan.simulation import Behaviour

V1, V2 = sha("e0", "v1"), sha("e0", "v2")


def with_load(busy: float, **spec: Any) -> Cluster:
    """Return a mixture whose e0 has grown with its load."""
    cluster = scaled(**spec)
    cluster.busy["e0"] = busy
    cluster.run(25)
    return cluster


def grown(**spec: Any) -> Cluster:
    cluster = with_load(1.4, **spec)
    assert deployments(cluster) == {V1: 3}
    return cluster


def test_pods_follow_and_go_again_and_the_spec_stays_as_it_was() -> None:
    cluster = grown()
    status = cluster.bodies["Expert", "e0"]["status"]
    assert status["ready"] == "3/3"
    assert status["autoscaling"]["replicas"] == 3
    assert "for 50% busy" in status["autoscaling"]["message"]
    assert deployments(cluster, "e1") == {sha("e1", "v1"): 1}
    cluster.busy["e0"] = 0.4
    cluster.run(40)
    assert deployments(cluster) == {V1: 1}
    assert cluster.bodies["Expert", "e0"]["spec"]["replicas"] == 1
    told = [note.message for note in cluster.told if note.reason == "Scaled"]
    assert told[-1].endswith("the load of 20 s asked for 1 replicas at most")


def test_they_grow_up_to_the_gpus_that_there_are_and_it_is_said() -> None:
    cluster = scaled()
    cluster.busy["e0"] = 1.4
    cluster.full = {"n1"}  # what is there has its GPU; nothing else finds one
    cluster.run(60)
    grown_to = deployments(cluster)[V1]
    assert grown_to in (2, 3), "what found none is waited for"
    assert sum(pod.ready for pod in cluster.pods.values() if "e0" in pod.deployment) == 1
    status = cluster.bodies["Expert", "e0"]["status"]
    assert "Insufficient nvidia.com/gpu" in status["autoscaling"]["full"]
    assert "Insufficient nvidia.com/gpu" in condition(cluster, "Expert", "e0", "Degraded")[2]
    writes = len(cluster.writes)
    cluster.busy["e0"] = 4.0
    cluster.run(60)
    assert cluster.writes[writes:] == []
    cluster.full = set()
    cluster.run(30)
    assert deployments(cluster)[V1] == 5
    assert "full" not in cluster.bodies["Expert", "e0"]["status"]["autoscaling"]


def test_when_nothing_changes_nothing_is_written() -> None:
    cluster = grown()
    writes = len(cluster.writes)
    cluster.busy["e0"] = 1.3  # less, but not less enough
    cluster.run(120)
    assert cluster.writes[writes:] == []


def test_a_new_operator_leaves_them_as_they_are_until_it_has_seen_enough() -> None:
    cluster = grown()
    cluster.kill_operator()
    cluster.wipe_status()
    cluster.busy["e0"] = 0.4
    cluster.run(20)
    assert deployments(cluster) == {V1: 3}
    cluster.run(20)
    assert deployments(cluster) == {V1: 1}


def test_a_rollout_has_room_for_the_load_and_lowers_nothing() -> None:
    cluster = grown(rollout={"minRequests": 1_000_000})
    cluster.want("e0", "v2")
    until_weight(cluster, 25)
    assert deployments(cluster) == {V1: 3, V2: 1}  # ceil(3 × 25%)
    cluster.busy["e0"] = 0.1
    cluster.run(60)
    assert deployments(cluster)[V1] == 3
    cluster.busy["e0"] = 2.4
    cluster.run(30)
    assert deployments(cluster) == {V1: 5, V2: 2}
    cluster.want("e0", "v1")
    cluster.busy["e0"] = 0.1
    cluster.run(60)
    assert outcome(cluster) is Outcome.ABORTED
    assert deployments(cluster) == {V1: 1}


def test_a_version_that_is_promoted_early_takes_over_the_number() -> None:
    cluster = grown(rollout={"minRequests": 1_000_000})
    cluster.want("e0", "v2")
    until_weight(cluster, 25)
    revision = row(cluster).rollout
    assert revision is not None
    cluster.put("Override", override("now", "e0", "Promote", revision=revision.revision))
    cluster.run(3)
    assert stable(cluster) == "v2"
    assert deployments(cluster)[V2] == 3
    cluster.run(30)
    assert deployments(cluster) == {V2: 3}


def test_a_way_back_finds_as_many_as_there_were() -> None:
    cluster = grown()
    cluster.want("e0", "v2")
    for _ in range(60):
        if stable(cluster) == "v2":
            break
        cluster.tick()
    cluster.busy["e0"] = 0.1
    cluster.want("e0", "v1")
    cluster.run(2)
    assert stable(cluster) == "v1"
    assert deployments(cluster)[V1] == 3


def test_a_gate_on_trial_holds_the_experts_that_it_knows() -> None:
    cluster = grown()
    rollout = {"steps": [{"weightPercent": 50}], "minRequests": 1_000_000}
    cluster.put("Gate", gate(["e1", "e0"], "g2", rollout=rollout))
    cluster.run(15)
    assert condition(cluster, "Gate", "gate", "Progressing")[1] == "Canary"
    cluster.busy["e0"] = 0.1
    cluster.run(60)
    assert deployments(cluster) == {V1: 3}
    cluster.put("Gate", gate(["e0", "e1"], "g1"))
    cluster.run(60)
    assert deployments(cluster) == {V1: 1}


def test_bounds_that_change_hold_at_once() -> None:
    cluster = grown()
    cluster.change("e0", autoscaling={**TARGET, "minReplicas": 4})
    cluster.run(2)
    assert deployments(cluster) == {V1: 4}
    cluster.change("e0", autoscaling={**TARGET, "maxReplicas": 2})
    cluster.run(2)
    assert deployments(cluster) == {V1: 2}
    cluster.change("e0", autoscaling=None)
    cluster.run(2)
    assert deployments(cluster) == {V1: 1}  # that of the spec
    assert "autoscaling" not in cluster.bodies["Expert", "e0"]["status"]


ACTS = st.lists(
    st.sampled_from(["idle", "busy", "v1", "v2", "bad", "dies", "time"]), min_size=1, max_size=8
)


@settings(max_examples=25, deadline=None)
@given(acts=ACTS)
def test_whatever_happens_stable_keeps_its_pods_in_a_rollout_and_its_bounds(
    acts: list[str],
) -> None:
    cluster = scaled()
    for act in acts:
        if act in ("idle", "busy"):
            cluster.busy["e0"] = 2.0 if act == "busy" else 0.1
        elif act in ("v1", "v2"):
            cluster.want("e0", act)
        elif act == "bad":
            cluster.behaviours[V2] = Behaviour(nonfinite=True)
        elif act == "dies":
            cluster.die_after = len(cluster.writes) + 1
        for _ in range(12):
            before, was = deployments(cluster), row(cluster)
            cluster.tick()
            now, held = deployments(cluster), was.stable
            assert held is not None
            assert all(0 < number <= 5 for number in now.values())
            rolling = was.rollout is not None and not was.rollout.outcome.ended
            if rolling and held.sha256 in now:
                assert now[held.sha256] >= before[held.sha256]
    cluster.busy["e0"] = 0.1
    cluster.run(120)
    assert set(deployments(cluster).values()) == {1}
