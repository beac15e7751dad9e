"""What people decide in the middle of things, replayed with the pods and routers of a cluster."""

from __future__ import annotations

from typing import Any

import pytest

from moe_core.rollout import Outcome, Rollout
from tests.operator.plan.bodies import override, sha, steps
from tests.operator.plan.looks import (
    deployments,
    outcome,
    progressing,
    row,
    stable,
    started,
    until_weight,
)
from tests.operator.plan.simulation import Behaviour, Simulation


def state(sim: Simulation, name: str) -> tuple[str, str]:
    status = sim.bodies["Override", name]["status"]
    return status["state"], status["message"]


def decide(sim: Simulation, name: str, action: str, **spec: Any) -> None:
    sim.put("Override", override(name, "e0", action, **spec))
    sim.operate()


def rollout(sim: Simulation) -> Rollout:
    found = row(sim).rollout
    assert found is not None
    return found


def on_trial(**spec: Any) -> Simulation:
    """Return a mixture whose e0 tries v2 at the first of two long steps."""
    sim = started(rollout={"steps": steps(25, 100, pause=30), **spec})
    sim.want("e0", "v2")
    until_weight(sim, 25)
    return sim


def promoted() -> Simulation:
    """Return a mixture whose e0 was promoted to v2, with v1 still warm."""
    sim = started()
    sim.want("e0", "v2")
    while stable(sim) != "v2":
        sim.tick()
    return sim


def test_serve_takes_a_candidate_back_in_one_epoch() -> None:
    sim = on_trial()
    assert sim.stored is not None
    epoch = sim.stored.table.epoch
    decide(sim, "back", "Serve", version="v1", insteadOf="v2", reason="it swears")
    assert sim.stored.table.epoch == epoch + 1
    assert (stable(sim), row(sim).candidate) == ("v1", None)
    assert row(sim).revoked == (sha("e0", "v2"),)
    assert state(sim, "back") == ("Active", "v1 is served instead of v2")
    status, reason, message = progressing(sim)
    assert (status, reason) == ("False", "Overridden")
    assert "Override back: it swears" in message


def test_serve_returns_from_a_promoted_version_in_one_epoch() -> None:
    sim = promoted()
    assert sim.stored is not None
    epoch = sim.stored.table.epoch
    decide(sim, "back", "Serve", version="v1", insteadOf="v2")
    assert sim.stored.table.epoch == epoch + 1
    assert stable(sim) == "v1"
    assert row(sim).revoked == (sha("e0", "v2"),)
    assert outcome(sim) is Outcome.ROLLED_BACK
    sim.run(20)
    assert deployments(sim) == {sha("e0", "v1"): 1}


def test_serve_of_a_version_without_pods_swaps_as_soon_as_it_is_routable() -> None:
    sim = promoted()
    sim.run(10)
    assert deployments(sim) == {sha("e0", "v2"): 1}
    decide(sim, "back", "Serve", version="v1", insteadOf="v2")
    assert stable(sim) == "v2"
    assert state(sim, "back")[0] == "Pending"
    sim.run(5)
    assert stable(sim) == "v1"
    assert state(sim, "back")[0] == "Active"
    assert rollout(sim).outcome is Outcome.ROLLED_BACK


def test_serve_lapses_when_the_spec_asks_for_something_else() -> None:
    sim = promoted()
    decide(sim, "back", "Serve", version="v1", insteadOf="v2")
    sim.want("e0", "v3")
    sim.run(20)
    assert stable(sim) == "v3"
    assert state(sim, "back") == ("Lapsed", "spec.version is v3, no longer v2")


def test_what_an_override_took_back_is_tried_again_when_it_is_deleted() -> None:
    sim = promoted()
    decide(sim, "back", "Serve", version="v1", insteadOf="v2")
    sim.run(10)
    sim.remove("Override", "back")
    sim.run(2)
    assert outcome(sim) is Outcome.PROGRESSING
    assert rollout(sim).revision == 3
    sim.run(20)
    assert stable(sim) == "v2"


def test_what_evidence_took_back_is_not_tried_again_when_an_override_is_deleted() -> None:
    sim = started()
    sim.behaviours[sha("e0", "v2")] = Behaviour(nonfinite=True)
    sim.want("e0", "v2")
    sim.run(10)
    decide(sim, "back", "Serve", version="v1", insteadOf="v2")
    sim.behaviours.clear()
    sim.remove("Override", "back")
    sim.run(20)
    assert (stable(sim), outcome(sim)) == ("v1", Outcome.ROLLED_BACK)


@pytest.mark.parametrize(
    ("version", "said"),
    [
        pytest.param("v7", "there is no version v7; there are v1, v2", id="unknown version"),
        pytest.param("v2", "version and insteadOf are both v2", id="the version itself"),
    ],
)
def test_serve_is_refused(version: str, said: str) -> None:
    sim = promoted()
    decide(sim, "odd", "Serve", version=version, insteadOf="v2")
    assert state(sim, "odd") == ("Refused", said)
    assert stable(sim) == "v2"


def test_the_newest_of_several_serves_holds() -> None:
    sim = promoted()
    sim.want("e0", "v3")
    sim.run(20)
    decide(sim, "a-first", "Serve", version="v1", insteadOf="v3")
    decide(sim, "b-second", "Serve", version="v2", insteadOf="v3")
    sim.run(10)
    assert stable(sim) == "v2"
    assert state(sim, "a-first") == ("Lapsed", "Override b-second is newer")


def test_pause_holds_and_deleting_it_goes_on() -> None:
    sim = on_trial()
    decide(sim, "hold", "Pause", insteadOf="v2", reason="lunch")
    sim.run(60)
    assert (outcome(sim), rollout(sim).weight) == (Outcome.PAUSED, 25)
    assert progressing(sim)[1] == "Paused"
    assert "lunch" in progressing(sim)[2]
    assert state(sim, "hold")[0] == "Active"
    sim.remove("Override", "hold")
    sim.run(60)
    assert stable(sim) == "v2"


def test_a_paused_candidate_that_turns_bad_is_taken_back() -> None:
    sim = on_trial()
    decide(sim, "hold", "Pause", insteadOf="v2")
    sim.behaviours[sha("e0", "v2")] = Behaviour(nonfinite=True)
    sim.run(3)
    assert outcome(sim) is Outcome.ROLLED_BACK


def test_promote_needs_no_further_evidence() -> None:
    sim = on_trial()
    decide(sim, "go", "Promote", revision=2, step=1)
    assert stable(sim) == "v2"
    assert state(sim, "go") == ("Done", "revision 2, v2, is Promoted")


def test_promote_waits_until_the_candidate_is_routable() -> None:
    sim = started()
    sim.want("e0", "v2")
    sim.operate()
    decide(sim, "go", "Promote", revision=2)
    assert state(sim, "go") == ("Pending", "v2 is not routable yet")
    sim.run(4)
    assert stable(sim) == "v2"
    assert state(sim, "go")[0] == "Done"


def test_abort_takes_the_candidate_back() -> None:
    sim = on_trial()
    decide(sim, "stop", "Abort", revision=2)
    assert (outcome(sim), row(sim).candidate) == (Outcome.ABORTED, None)
    assert state(sim, "stop")[0] == "Done"
    sim.run(30)
    assert stable(sim) == "v1"


def test_abort_retry_promote() -> None:
    sim = on_trial()
    decide(sim, "stop", "Abort", revision=2)
    sim.run(3)
    decide(sim, "again", "Retry", revision=2)
    assert outcome(sim) is Outcome.PROGRESSING
    assert rollout(sim).revision == 3
    assert state(sim, "again") == ("Done", "tried again as revision 3")
    sim.run(5)
    decide(sim, "go", "Promote", revision=3)
    assert stable(sim) == "v2"
    for name in ("stop", "again", "go"):
        assert state(sim, name)[0] == "Done"


def test_retry_acts_once() -> None:
    sim = started()
    sim.behaviours[sha("e0", "v2")] = Behaviour(nonfinite=True)
    sim.want("e0", "v2")
    sim.run(10)
    decide(sim, "again", "Retry", revision=2)
    sim.run(30)
    assert (outcome(sim), rollout(sim).revision) == (Outcome.ROLLED_BACK, 3)
    sim.wipe_status()
    sim.run(10)
    assert rollout(sim).revision == 3
    assert state(sim, "again")[0] == "Lapsed"


@pytest.mark.parametrize(
    ("action", "spec", "said"),
    [
        pytest.param(
            "Promote", {"revision": 1}, "revision 1 is over; revision 2 is newer", id="old revision"
        ),
        pytest.param(
            "Promote",
            {"revision": 2, "step": 0},
            "step 0 is over; step 1 is in progress",
            id="old step",
        ),
        pytest.param(
            "Retry",
            {"revision": 2},
            "revision 2 has not failed: it is Progressing",
            id="no fail",
        ),
    ],
)
def test_a_stale_override_lapses_visibly(action: str, spec: dict[str, Any], said: str) -> None:
    sim = on_trial()
    decide(sim, "late", action, **spec)
    assert state(sim, "late") == ("Lapsed", said)
    assert rollout(sim).weight == 25


def test_promote_after_the_end_lapses() -> None:
    sim = on_trial()
    decide(sim, "stop", "Abort", revision=2)
    decide(sim, "go", "Promote", revision=2)
    assert state(sim, "go") == ("Lapsed", "revision 2 has ended: it is Aborted")
    assert stable(sim) == "v1"
