"""Rollouts by evidence: golden sets, copies, outcomes and queries; and what the want of it does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from moe_core.rollout import Outcome
from tests.operator.plan.bodies import evaluated, expert, gate, mixture, override, sha, steps
from tests.operator.plan.looks import outcome, progressing, row, stable, started
from tests.operator.plan.simulation import Behaviour, Simulation

V2 = sha("e0", "v2")


def on_trial(behaviour: Behaviour | None = None, **spec: Any) -> Simulation:
    """Return a mixture with a golden set, and a new version of e0 that is in the dark."""
    sim = started(**spec)
    sim.put("Mixture", mixture(**evaluated()))
    if behaviour is not None:
        sim.behaviours[V2] = behaviour
    sim.want("e0", "v2")
    for _ in range(20):
        if row(sim).candidate is not None:
            return sim
        sim.tick()
    raise AssertionError("it is never on trial")


def evidence(sim: Simulation) -> Mapping[str, tuple[str, str]]:
    told = sim.bodies["Expert", "e0"]["status"]["rollout"].get("evidence", ())
    return {e["name"]: (e["state"], e["message"]) for e in told}


def shown(sim: Simulation) -> tuple[str, str]:
    """Return the phase, and the rollout's outcome as people see it."""
    status = sim.bodies["Expert", "e0"]["status"]
    return status["phase"], status["rollout"]["outcome"]


def test_a_candidate_gets_weight_when_it_has_passed_the_golden_set() -> None:
    sim = on_trial()
    sim.tick()
    (name,) = sim.evaluators
    assert name == f"e0-eval-2-{'7' * 10}-1"
    assert evidence(sim)["golden"] == ("Waiting", f"golden set: {name}: runs")
    sim.run(3)
    rollout = row(sim).rollout
    assert rollout is not None
    assert "of 64 sequences, 1.3% of top-k choices flipped" in rollout.evaluated
    assert sim.evaluators == {}
    sim.run(20)
    assert (stable(sim), outcome(sim)) == ("v2", Outcome.PROMOTED)
    assert evidence(sim)["golden"][0] == "Pass"
    assert sum(w.startswith("create") for w in sim.writes) == 1


def test_a_candidate_that_is_worse_is_taken_back_without_weight() -> None:
    sim = on_trial(Behaviour(golden=(0.1, 0.1))).run(6)
    assert (stable(sim), outcome(sim)) == ("v1", Outcome.ROLLED_BACK)
    assert row(sim).rollout.weights == ()  # type: ignore[union-attr]
    assert "v2 was taken back: golden set: +0.100 bits per token" in progressing(sim)[2]
    assert sim.evaluators == {}


def test_a_slice_with_a_limit_of_its_own_can_object() -> None:
    sim = started()
    sim.put("Mixture", mixture(**evaluated()))
    limits = [{"name": "code", "maxLossIncrease": "0.1%"}]
    own = evaluated(maxLossIncrease="50%", slices=limits)["evaluation"]
    sim.behaviours[V2] = Behaviour(golden=(0.1, 0.1))
    sim.change("e0", evaluation=own, version="v2", artifact={"uri": "file:///v2", "sha256": V2})
    sim.run(12)
    assert outcome(sim) is Outcome.ROLLED_BACK
    assert "golden set, slice code" in progressing(sim)[2]


def test_what_the_golden_set_cannot_tell_pauses_until_a_person_decides() -> None:
    sim = on_trial(Behaviour(golden=(0.02, 0.1))).run(6)
    assert shown(sim) == ("Paused", "Paused")
    assert progressing(sim)[:2] == ("False", "EvidenceMissing")
    assert "+0.020 bits per token" in progressing(sim)[2]
    assert outcome(sim) is Outcome.PROGRESSING
    written = len(sim.writes)
    sim.run(5)
    assert sim.writes[written:] == [], "nothing is tried again that gives the same"
    sim.put("Override", override("go", "e0", "Promote", revision=2))
    sim.run(3)
    assert (stable(sim), sim.evaluators) == ("v2", {})


def test_a_wider_limit_lets_a_paused_rollout_go_on() -> None:
    sim = on_trial(Behaviour(golden=(0.02, 0.1))).run(6)
    sim.put("Mixture", mixture(**evaluated(maxLossIncrease="5%")))
    sim.run(20)
    assert stable(sim) == "v2"


def test_an_evaluator_that_fails_is_made_again_with_growing_pauses() -> None:
    sim = on_trial()
    sim.broken_evaluations = 2
    made: list[int] = []
    for second in range(60):
        sim.tick()
        names = [w.removeprefix("create ") for w in sim.writes if w.startswith("create")]
        made += [second] * (len(names) - len(made))
    assert [name.rpartition("-")[2] for name in names] == ["1", "2", "3"]
    _, second, third = made  # the first one a second before these were counted
    assert second == 12  # three seconds of work, ten of waiting
    assert third - second == 23
    assert (stable(sim), sim.evaluators) == ("v2", {})


def test_no_golden_result_within_the_deadline_pauses_and_a_late_one_goes_on() -> None:
    sim = on_trial(rollout={"evidenceDeadlineSeconds": 30})
    sim.broken_evaluations = 3
    sim.run(32)
    assert progressing(sim)[:2] == ("False", "EvidenceMissing")
    assert "failed and is tried again: no router answers" in progressing(sim)[2]
    assert outcome(sim) is Outcome.PROGRESSING
    sim.run(80)
    assert (stable(sim), outcome(sim)) == ("v2", Outcome.PROMOTED)


def test_an_evaluator_that_vanished_is_made_again() -> None:
    sim = on_trial().run(1)
    sim.evaluators.clear()
    sim.run(20)
    assert stable(sim) == "v2"


def test_a_result_about_something_else_counts_for_nothing() -> None:
    sim = on_trial()
    sim.foreign_result = True
    sim.run(5)
    assert row(sim).rollout.evaluated == ""  # type: ignore[union-attr]
    assert "result is of Trial" in evidence(sim)["golden"][1]
    sim.run(40)
    assert stable(sim) == "v2"


def test_what_an_evaluation_lacks_is_said_at_once() -> None:
    sim = started()
    sim.change("e0", evaluation=evaluated()["evaluation"])
    sim.want("e0", "v2")
    sim.run(8)
    assert progressing(sim)[1] == "EvidenceMissing"
    assert "spec.trunk of Mixture tiny needs uri and sha256" in progressing(sim)[2]


def test_an_abort_takes_the_evaluator_with_it() -> None:
    sim = on_trial().run(1)
    assert sim.evaluators
    sim.want("e0", "v1")
    sim.tick()
    assert (outcome(sim), sim.evaluators) == (Outcome.ABORTED, {})


def test_evaluators_go_with_their_mixture() -> None:
    sim = on_trial().run(1)
    sim.remove("Mixture", "tiny")
    sim.tick()
    assert sim.evaluators == {}


def test_no_evaluator_is_made_while_a_person_holds_the_rollout() -> None:
    sim = started()
    sim.put("Mixture", mixture(**evaluated()))
    sim.put("Override", override("wait", "e0", "Pause", insteadOf="v2"))
    sim.want("e0", "v2")
    sim.run(10)
    assert sim.evaluators == {}
    assert "not begun while the rollout is held" in progressing(sim)[2]
    sim.remove("Override", "wait")
    sim.run(25)
    assert stable(sim) == "v2"


def quiet(**spec: Any) -> Simulation:
    """Return a new version that has weight, and no session that asks it."""
    sim = started(**spec)
    sim.traffic = 0
    sim.want("e0", "v2")
    return sim.run(8)


def test_a_version_that_nobody_asks_is_paused_not_failed_and_goes_on_when_somebody_does() -> None:
    sim = quiet(rollout={"evidenceDeadlineSeconds": 30, "progressDeadlineSeconds": 20})
    assert progressing(sim)[:2] == ("True", "Canary")
    sim.run(40)
    assert progressing(sim)[:2] == ("False", "EvidenceMissing")
    assert "0 of 5 requests, 0 rows seen; paused for want of evidence" in progressing(sim)[2]
    assert (shown(sim), row(sim).candidate is not None) == (("Paused", "Paused"), True)
    sim.traffic = 10
    sim.run(20)
    assert stable(sim) == "v2"


def test_copies_of_rows_for_stable_stand_in_for_traffic() -> None:
    first = {"steps": steps(1, 100), "minRequests": 40}
    cold = started(rollout={**first, "shadowPercent": 100})
    cold.want("e0", "v2")
    bare = started(rollout=first)
    bare.want("e0", "v2")
    for sim in (cold, bare):
        sim.run(9)
    assert row(cold).rollout.weight == 100  # type: ignore[union-attr]
    assert row(bare).rollout.weight == 1  # type: ignore[union-attr]


def test_a_copy_that_is_not_finite_takes_a_candidate_back_in_the_dark() -> None:
    sim = on_trial(Behaviour(nonfinite=True), rollout={"shadowPercent": 50})
    sim.run(2)
    assert outcome(sim) is Outcome.ROLLED_BACK
    assert row(sim).rollout.weights == ()  # type: ignore[union-attr]
    assert "rows are not finite numbers" in progressing(sim)[2]


def reported(bits: float, **spec: Any) -> Simulation:
    """Return a rollout in which clients report losses: 2 bits of stable, `bits` of the new one."""
    sim = started(rollout={"steps": steps(50, 100, pause=1), **spec})
    sim.reporting = True
    sim.behaviours[V2] = Behaviour(bits=bits)
    sim.want("e0", "v2")
    return sim


def test_sessions_that_lose_more_take_a_candidate_back() -> None:
    sim = reported(2.3).run(30)
    assert outcome(sim) is Outcome.ROLLED_BACK
    assert "outcomes: +0.29" in progressing(sim)[2]
    assert stable(sim) == "v1"


def test_sessions_that_lose_no_more_are_waited_for_before_all_see_a_candidate() -> None:
    sim = reported(2.0)
    sim.traffic = 2
    sim.run(12)
    assert row(sim).rollout.weight == 50  # type: ignore[union-attr]
    assert evidence(sim)["loss"][0] == "Waiting"
    assert "of each under one weight wanted" in progressing(sim)[2]
    sim.traffic = 20
    sim.run(40)
    assert stable(sim) == "v2"


QUERY = {
    "name": "answers",
    "query": 'bad{v="{{version}}",e="{{expert}}",m="{{mixture}}",n="{{namespace}}"}',
    "maxIncreasePercent": 10,
}
ASKED = 'bad{v="%s",e="e0",m="tiny",n="models"}'


def queried(**samples: float | str) -> Simulation:
    sim = started(rollout={"analysis": {"prometheus": [QUERY]}, "evidenceDeadlineSeconds": 30})
    sim.put("Mixture", mixture(prometheus={"address": "http://prometheus:9090"}))
    sim.samples = {ASKED % version: value for version, value in samples.items()}
    sim.want("e0", "v2")
    return sim.run(8)


def test_a_query_that_grew_takes_a_candidate_back() -> None:
    sim = queried(v1=1.0, v2=1.2)
    assert outcome(sim) is Outcome.ROLLED_BACK
    expected = "answers is 1.2 against 1 of stable; maxIncreasePercent is 10"
    assert expected in progressing(sim)[2]


def test_a_query_without_an_answer_is_waited_for_and_tells_neither_good_nor_bad() -> None:
    sim = queried(v1=1.0, v2="HTTP 503, and no JSON")
    assert evidence(sim)["answers"] == ("Waiting", "answers: HTTP 503, and no JSON")
    sim.run(30)
    assert progressing(sim)[1] == "EvidenceMissing"
    sim.samples[ASKED % "v2"] = 1.05
    sim.run(10)
    assert stable(sim) == "v2"


def test_a_query_may_have_the_name_of_other_evidence() -> None:
    named = {**QUERY, "name": "golden"}
    sim = started(rollout={"analysis": {"prometheus": [named]}})
    sim.put("Mixture", mixture(prometheus={"address": "http://prometheus:9090"}))
    sim.samples = {ASKED % "v1": 1.0, ASKED % "v2": 1.0}
    sim.want("e0", "v2")
    sim.run(20)
    assert stable(sim) == "v2"
    assert row(sim).rollout.evaluated == ""  # type: ignore[union-attr]


def test_queries_need_an_address() -> None:
    sim = started(rollout={"analysis": {"prometheus": [QUERY]}})
    sim.want("e0", "v2")
    sim.run(8)
    assert progressing(sim)[1] == "EvidenceMissing"
    assert "answers: spec.prometheus of Mixture tiny is not set" in progressing(sim)[2]


def test_without_any_of_this_a_rollout_is_as_it_was() -> None:
    sim = Simulation()
    sim.put("Mixture", mixture())
    sim.put("Expert", expert("e0"))
    sim.put("Gate", gate(["e0"]))
    sim.run(10).want("e0", "v2")
    sim.run(30)
    assert stable(sim) == "v2"
    assert not [w for w in sim.writes if w.startswith("create")]
