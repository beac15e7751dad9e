"""Whole rollouts replayed to their end without sleeping; every pass is checked for legality."""

from __future__ import annotations

import pytest

from moe_core.rollout import Outcome
from tests.operator.plan.bodies import expert, mixture, override, sha, steps
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


def test_a_mixture_is_served_from_nothing() -> None:
    sim = started()
    assert sim.stored is not None
    assert [stable(sim, e) for e in ("e0", "e1")] == ["v1", "v1"]
    assert [g.name for g in sim.stored.table.gates] == ["gate"]
    assert condition(sim, "Mixture", "tiny", "Ready")[:2] == ("True", "Serving")
    assert sim.bodies["Mixture", "tiny"]["status"]["experts"] == "2/2"
    assert sim.bodies["Mixture", "tiny"]["status"]["routers"] == "2/2"
    assert sim.bodies["Expert", "e0"]["status"]["inUse"] is True
    assert sim.bodies["Gate", "gate"]["status"]["inUse"] is True


def test_nothing_is_written_when_nothing_changes() -> None:
    sim = started()
    before = len(sim.writes)
    sim.run(30)
    assert sim.writes[before:] == []


def test_a_good_version_is_promoted_by_steps() -> None:
    sim = started()
    sim.want("e0", "v2")
    sim.run(20)
    rollout = row(sim).rollout
    assert stable(sim) == "v2"
    assert rollout is not None
    assert [w.percent for w in rollout.weights] == [25, 100, 100]
    assert progressing(sim)[:2] == ("True", "Complete")
    assert deployments(sim) == {sha("e0", "v2"): 1}


def test_the_version_that_was_replaced_stays_warm_for_a_while() -> None:
    sim = started()
    sim.want("e0", "v2")
    while outcome(sim) is not Outcome.PROMOTED or stable(sim) != "v2":
        sim.tick()
    assert row(sim).previous is not None
    assert deployments(sim) == {sha("e0", "v1"): 1, sha("e0", "v2"): 1}
    sim.run(8)
    assert row(sim).previous is None
    assert deployments(sim) == {sha("e0", "v2"): 1}


@pytest.mark.parametrize(
    ("behaviour", "reason", "words"),
    [
        pytest.param(Behaviour(nonfinite=True), "RolledBack", "not finite", id="gives NaN"),
        pytest.param(Behaviour(fails=True), "RolledBack", "attempts failed", id="fails"),
        pytest.param(Behaviour(latency_bucket=4), "RolledBack", "median latency", id="is slow"),
        pytest.param(Behaviour(norm=50.0), "RolledBack", "mean norm", id="is too loud"),
        pytest.param(
            Behaviour(refused="sha256 is 1234"),
            "ArtifactRefused",
            "sha256 is 1234",
            id="is refused",
        ),
        pytest.param(Behaviour(starts=False), "DeadlineExceeded", "within 20 s", id="never starts"),
    ],
)
def test_a_version_that_is_bad_is_taken_back(behaviour: Behaviour, reason: str, words: str) -> None:
    sim = started()
    sim.traffic = 40
    sim.behaviours[sha("e0", "v2")] = behaviour
    sim.want("e0", "v2")
    sim.run(60)
    assert stable(sim) == "v1"
    assert row(sim).candidate is None
    assert outcome(sim) is Outcome.ROLLED_BACK
    status, said, message = progressing(sim)
    assert (status, said) == ("False", reason)
    assert words in message
    assert deployments(sim) == {sha("e0", "v1"): 1}
    assert condition(sim, "Expert", "e0", "Ready")[0] == "True"


def test_a_bad_first_version_is_waited_for_and_named() -> None:
    sim = Simulation()
    sim.behaviours[sha("e0", "v1")] = Behaviour(refused="gate_proj has shape (3, 4)")
    sim.put("Mixture", mixture())
    sim.put("Expert", expert("e0"))
    sim.run(40)
    assert condition(sim, "Expert", "e0", "Ready")[:2] == ("False", "ArtifactRefused")
    sim.want("e0", "v2")
    sim.run(10)
    assert stable(sim) == "v2"


def test_good_to_bad_to_good() -> None:
    sim = started()
    sim.behaviours[sha("e0", "v2")] = Behaviour(nonfinite=True)
    sim.want("e0", "v2")
    sim.run(12)
    assert outcome(sim) is Outcome.ROLLED_BACK
    sim.want("e0", "v1")
    sim.run(3)
    assert progressing(sim)[:2] == ("True", "Complete")
    sim.want("e0", "v3")
    sim.run(25)
    assert stable(sim) == "v3"


def test_bad_to_bad() -> None:
    sim = started()
    for version in ("v2", "v3"):
        sim.behaviours[sha("e0", version)] = Behaviour(nonfinite=True)
        sim.want("e0", version)
        sim.run(15)
        assert outcome(sim) is Outcome.ROLLED_BACK
        assert stable(sim) == "v1"


def test_a_version_that_failed_is_tried_again_when_wanted_anew() -> None:
    sim = started()
    sim.behaviours[sha("e0", "v2")] = Behaviour(nonfinite=True)
    sim.want("e0", "v2")
    sim.run(15)
    sim.behaviours.clear()
    sim.run(15)
    assert stable(sim) == "v1", "it is not tried again by itself"
    sim.want("e0", "v1")
    sim.run(2)
    sim.want("e0", "v2")
    sim.run(25)
    assert stable(sim) == "v2"


def test_three_changes_in_a_second() -> None:
    sim = started()
    before = row(sim).stable
    for version in ("v2", "v3", "v1"):
        sim.want("e0", version)
        sim.operate()
    sim.run(20)
    assert row(sim).stable == before
    assert row(sim).candidate is None
    assert progressing(sim)[:2] == ("True", "Complete")
    assert deployments(sim) == {sha("e0", "v1"): 1}


def test_a_third_version_in_the_middle_takes_the_second_back_first() -> None:
    sim = started()
    sim.want("e0", "v2")
    while row(sim).candidate is None:
        sim.tick()
    sim.run(2)
    sim.want("e0", "v3")
    sim.operate()
    assert sha("e0", "v2") in row(sim).revoked
    sim.run(30)
    assert stable(sim) == "v3"


def test_setting_the_version_back_in_the_middle_is_an_abort() -> None:
    sim = started()
    sim.want("e0", "v2")
    sim.run(6)
    assert row(sim).candidate is not None
    sim.want("e0", "v1")
    sim.operate()
    assert outcome(sim) is Outcome.ABORTED
    assert row(sim).candidate is None
    assert row(sim).revoked == (sha("e0", "v2"),)


def test_setting_the_version_back_after_a_promotion_is_served_at_once() -> None:
    sim = started()
    sim.want("e0", "v2")
    while stable(sim) != "v2":
        sim.tick()
    assert sim.stored is not None
    epoch = sim.stored.table.epoch
    sim.want("e0", "v1")
    sim.operate()
    assert sim.stored.table.epoch == epoch + 1
    assert stable(sim) == "v1"
    assert row(sim).revoked == (sha("e0", "v2"),)
    sim.want("e0", "v2")
    sim.run(30)
    assert stable(sim) == "v2"


def test_a_candidate_whose_pods_are_all_killed_under_load_fails() -> None:
    sim = started(rollout={"steps": steps(50, 100, pause=30)})
    sim.want("e0", "v2")
    until_weight(sim, 50)
    sim.kill_pods(sha("e0", "v2"))
    sim.run(3)
    assert outcome(sim) is Outcome.ROLLED_BACK
    assert stable(sim) == "v1"


def test_a_candidate_whose_pods_are_all_killed_without_load_waits_for_new_ones() -> None:
    sim = started(rollout={"steps": steps(50, 100), "minRequests": 0})
    sim.traffic = 0
    sim.want("e0", "v2")
    while row(sim).candidate is None:
        sim.tick()
    sim.kill_pods(sha("e0", "v2"))
    sim.run(30)
    assert stable(sim) == "v2"


def test_no_step_ends_on_too_few_requests() -> None:
    sim = started()
    sim.traffic = 0
    sim.want("e0", "v2")
    sim.run(60)
    rollout = row(sim).rollout
    assert rollout is not None
    assert (rollout.step, rollout.weight) == (1, 25)
    assert progressing(sim)[2] == "step 1 of 2 at 25%: 0 of 5 requests, 0 rows seen"
    sim.traffic = 10
    sim.run(20)
    assert stable(sim) == "v2"


def test_no_step_ends_while_a_router_is_behind() -> None:
    sim = started(rollout={"steps": steps(10, 20, 30)})
    sim.want("e0", "v2")
    until_weight(sim, 10)
    sim.lagging = True
    sim.run(20)
    rollout = row(sim).rollout
    assert rollout is not None
    assert (rollout.step, rollout.weight) == (2, 20), "the raise that no router took is the last"
    assert "has not taken epoch" in progressing(sim)[2]
    sim.lagging = False
    sim.run(20)
    assert stable(sim) == "v2"


def test_routers_that_a_new_operator_has_not_asked_yet_are_not_said_to_be_behind() -> None:
    sim = started(rollout={"steps": steps(10, 20, 30)})
    sim.want("e0", "v2")
    until_weight(sim, 10)
    sim.heard = False
    sim.run(2)
    said = progressing(sim)[2]
    assert "was not heard yet" in said
    assert "has not taken epoch" not in said
    sim.heard = True
    sim.run(20)
    assert stable(sim) == "v2"


def test_pods_stay_while_a_router_may_still_send_to_them() -> None:
    sim = started()
    sim.want("e0", "v2")
    while stable(sim) != "v2":
        sim.tick()
    sim.run(2)
    sim.lagging = True
    sim.run(20)
    assert row(sim).previous is None
    assert deployments(sim) == {sha("e0", "v1"): 1, sha("e0", "v2"): 1}
    sim.lagging = False
    sim.run(2)
    assert deployments(sim) == {sha("e0", "v2"): 1}


def test_sessions_of_the_old_version_keep_it_until_every_router_knows_of_the_promotion() -> None:
    sim = started()
    sim.want("e0", "v2")
    until_weight(sim, 100)
    sim.lagging = True
    sim.put("Override", override("go", "e0", "Promote", revision=2))
    sim.run(20)
    assert row(sim).previous is not None
    sim.lagging = False
    sim.run(2)
    assert row(sim).previous is None


def test_a_version_that_was_replaced_is_scaled_with_the_other_while_it_is_warm() -> None:
    sim = started()
    sim.want("e0", "v2")
    while stable(sim) != "v2":
        sim.tick()
    sim.change("e0", replicas=3)
    sim.tick()
    assert deployments(sim) == {sha("e0", "v1"): 3, sha("e0", "v2"): 3}


def test_room_is_made_before_each_step() -> None:
    sim = started(replicas=4, rollout={"steps": steps(25, 50, 100)})
    sim.want("e0", "v2")
    seen = []
    for _ in range(30):
        sim.tick()
        rollout = row(sim).rollout
        assert rollout is not None
        if row(sim).candidate is not None:
            ready = sum(
                p.ready and sim.deployments[p.deployment].sha256 == sha("e0", "v2")
                for p in sim.pods.values()
            )
            seen.append((rollout.weight, ready))
            assert ready >= rollout.weight * 4 // 100
    assert {weight for weight, _ in seen} == {25, 50, 100}
    assert stable(sim) == "v2"
    assert deployments(sim) == {sha("e0", "v2"): 4}


def test_scaling_in_the_middle_changes_both_versions() -> None:
    sim = started(replicas=2, rollout={"steps": steps(50, 100, pause=10)})
    sim.want("e0", "v2")
    until_weight(sim, 50)
    sim.change("e0", replicas=6)
    sim.run(2)
    assert deployments(sim) == {sha("e0", "v1"): 6, sha("e0", "v2"): 3}
    sim.run(50)
    assert deployments(sim) == {sha("e0", "v2"): 6}


def test_spec_and_replicas_changed_together() -> None:
    sim = started()
    sim.change("e0", replicas=3)
    sim.want("e0", "v2")
    sim.run(40)
    assert deployments(sim) == {sha("e0", "v2"): 3}
    assert sim.bodies["Expert", "e0"]["status"]["ready"] == "3/3"


def test_an_expert_at_zero_keeps_its_place() -> None:
    sim = started()
    sim.change("e0", replicas=0)
    sim.run(5)
    assert stable(sim) == "v1"
    assert condition(sim, "Expert", "e0", "Ready")[:2] == ("False", "ScaledToZero")
    sim.change("e0", replicas=2)
    sim.run(5)
    assert condition(sim, "Expert", "e0", "Ready")[0] == "True"


def test_losing_all_status_changes_nothing_that_is_served() -> None:
    sim = started()
    sim.put("Override", override("hold", "e0", "Pause", insteadOf="v2"))
    sim.want("e0", "v2")
    sim.run(8)
    before = sim.stored
    statuses = {key: body["status"] for key, body in sim.bodies.items()}
    sim.wipe_status()
    sim.run(3)
    assert sim.stored == before
    for key, status in statuses.items():
        assert sim.bodies[key]["status"].keys() == status.keys()


def test_an_object_deleted_and_made_again_starts_anew() -> None:
    sim = started()
    sim.remove("Expert", "e0")
    sim.run(3)
    assert row(sim).stable is None, "its row stays, empty, while a gate names it"
    again = expert("e0", "v2", created=30)
    again["metadata"]["uid"] = "uid-again"
    sim.put("Expert", again)
    sim.run(10)
    assert stable(sim) == "v2"


def test_a_mixture_that_is_deleted_takes_its_table_and_frees_what_it_locked() -> None:
    sim = started()
    sim.remove("Mixture", "tiny")
    sim.run(3)
    assert sim.stored is None
    assert sim.deployments == {}
    assert sim.bodies["Expert", "e0"]["status"]["inUse"] is False
    assert condition(sim, "Gate", "gate", "Ready")[1] == "MixtureMissing"
    sim.put("Mixture", mixture())
    sim.run(10)
    assert condition(sim, "Mixture", "tiny", "Ready")[0] == "True"
