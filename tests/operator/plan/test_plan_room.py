"""Replicas and room: steps wait for pods, and stable stays as large while it may be needed."""

from __future__ import annotations

from typing import Any

import pytest

from moe_core.rollout import Outcome
from tests.operator.plan.bodies import mixture, override, sha, steps
from tests.operator.plan.looks import (
    condition,
    deployments,
    outcome,
    progressing,
    row,
    stable,
    started,
    until_weight,
)
from tests.operator.plan.simulation import Behaviour, Simulation

V1, V2 = sha("e0", "v1"), sha("e0", "v2")


def without_room(**spec: Any) -> Simulation:
    """Return a mixture whose nodes have no room for another pod, and that wants v2."""
    sim = started(**spec)
    sim.full = {"n1"}
    sim.want("e0", "v2")
    return sim


def test_no_room_for_a_candidate_leaves_everything_as_it_is() -> None:
    sim = without_room()
    sim.run(5)
    status, reason, message = progressing(sim)
    assert (status, reason) == ("False", "Unschedulable")
    assert "Insufficient nvidia.com/gpu" in message
    assert (stable(sim), row(sim).candidate) == ("v1", None)
    assert condition(sim, "Expert", "e0", "Ready")[0] == "True"
    written = len(sim.writes)
    sim.run(60)
    assert sim.writes[written:] == [], "no room is no fault of the version, however long"
    sim.full = set()
    sim.run(20)
    assert stable(sim) == "v2"


def image_of(sim: Simulation, sha256: str) -> str:
    (found,) = (d for d in sim.deployments.values() if d.sha256 == sha256)
    image: str = found.manifest.body["spec"]["template"]["spec"]["containers"][0]["image"]
    return image


def test_settings_by_which_no_pod_can_run_are_mended_where_they_were_made() -> None:
    sim, other = without_room(), "registry.example.com/worker:other"
    sim.run(5)
    sim.put("Mixture", mixture(workers={"image": other}))
    sim.run(3)
    assert image_of(sim, V2) == other
    assert image_of(sim, V1) != other, "what is served is not restarted"
    rollout = row(sim).rollout
    assert rollout is not None
    assert rollout.revision == 3
    sim.full = set()
    sim.run(20)
    assert stable(sim) == "v2"


@pytest.mark.parametrize(
    "failed", [pytest.param(True, id="failed"), pytest.param(False, id="seen")]
)
def test_a_version_that_was_tried_keeps_its_settings(failed: bool) -> None:
    sim = started(rollout={"steps": steps(50, pause=60)})
    sim.want("e0", "v2")
    if failed:
        sim.behaviours[V2] = Behaviour(starts=False)
        sim.run(40)
        assert outcome(sim) is Outcome.ROLLED_BACK
    else:
        until_weight(sim, 50)
    before = row(sim).rollout
    sim.put("Mixture", mixture(workers={"image": "registry.example.com/worker:other"}))
    sim.run(3)
    assert row(sim).rollout == before


def test_the_time_to_come_up_runs_from_when_there_was_room() -> None:
    sim = without_room()
    sim.behaviours[V2] = Behaviour(starts=False)
    sim.run(60)
    sim.full = set()
    sim.run(18)
    assert outcome(sim) is Outcome.PROGRESSING
    sim.run(5)
    assert outcome(sim) is Outcome.ROLLED_BACK
    assert progressing(sim)[1] == "DeadlineExceeded"


def test_no_room_for_the_next_step_keeps_the_weight() -> None:
    sim = started(replicas=4, rollout={"steps": steps(25, 50, 100)})
    sim.want("e0", "v2")
    until_weight(sim, 25)
    sim.full = {"n1"}
    sim.run(30)
    rollout = row(sim).rollout
    assert rollout is not None
    assert (rollout.outcome, rollout.weight) == (Outcome.PROGRESSING, 25)
    assert progressing(sim)[:2] == ("False", "Unschedulable")
    sim.full = set()
    sim.run(30)
    assert stable(sim) == "v2"


def test_a_quota_that_is_used_up_is_no_room() -> None:
    sim = started()
    sim.behaviours[V2] = Behaviour(starts=False)
    sim.quota = 'pods "e0" is forbidden: exceeded quota: gpus'
    sim.want("e0", "v2")
    sim.run(30)
    assert progressing(sim)[:2] == ("False", "Unschedulable")
    assert outcome(sim) is Outcome.PROGRESSING


def test_stable_is_not_made_smaller_in_a_rollout_nor_for_a_while_after_it() -> None:
    sim = started(replicas=4, rollout={"steps": steps(50, pause=6)})
    sim.want("e0", "v2")
    until_weight(sim, 50)
    sim.change("e0", replicas=1)
    sim.run(3)
    assert deployments(sim)[V1] == 4
    said = condition(sim, "Expert", "e0", "Degraded")
    assert said == (
        "False",
        "AsWanted",
        "nothing is missing; 4 pods become 1 when the rollout is over and cold",
    )
    while stable(sim) == "v1":
        sim.tick()
    sim.run(3)
    assert deployments(sim)[V1] == 4, "sessions still use it"
    sim.run(10)
    assert deployments(sim) == {V2: 1}
    assert condition(sim, "Expert", "e0", "Degraded")[2] == "nothing is missing"


def test_stable_is_not_made_smaller_for_a_while_after_a_rollout_that_failed() -> None:
    sim = started(replicas=3, rollout={"steps": steps(50, pause=20)})
    sim.want("e0", "v2")
    until_weight(sim, 50)
    sim.put("Override", override("stop", "e0", "Abort", revision=2))
    sim.operate()
    sim.change("e0", replicas=1)
    sim.run(3)
    assert deployments(sim)[V1] == 3
    sim.run(6)
    assert deployments(sim) == {V1: 1}


def test_stable_is_made_larger_at_once() -> None:
    sim = started(rollout={"steps": steps(50, pause=20)})
    sim.want("e0", "v2")
    until_weight(sim, 50)
    sim.change("e0", replicas=5)
    sim.tick()
    assert deployments(sim)[V1] == 5


def test_stable_is_made_smaller_at_once_when_nothing_is_under_way() -> None:
    sim = started(replicas=4)
    sim.change("e0", replicas=2)
    sim.tick()
    assert deployments(sim) == {V1: 2}


def test_what_scales_an_expert_sees_stable_only() -> None:
    sim = started(replicas=2, rollout={"steps": steps(100, pause=20)})
    sim.want("e0", "v2")
    until_weight(sim, 100)
    assert deployments(sim) == {V1: 2, V2: 2}
    status = sim.bodies["Expert", "e0"]["status"]
    assert (status["replicas"], status["readyReplicas"]) == (2, 2)
    assert f"moeops.dev/digest={V1[:10]}" in status["selector"].split(",")
    sim.put("Override", override("go", "e0", "Promote", revision=2))
    sim.run(2)
    status = sim.bodies["Expert", "e0"]["status"]
    assert status["replicas"] == 2
    assert f"moeops.dev/digest={V2[:10]}" in status["selector"].split(",")
