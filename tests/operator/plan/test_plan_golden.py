"""What evaluators say, read from their last words; and what is asked of outcomes and Prometheus."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from moe_core.document import InvalidDocument
from moe_core.rollout import Outcome, Rollout, Version, WeightSince
from moe_core.rows import ExpertRow, Role
from moe_operator.golden import Trial, read_result
from moe_operator.outcomes import outcome_findings
from moe_operator.questions import prometheus_findings
from moe_operator.router_report import Measure, OutcomeSum
from moe_operator.sequential import Arm
from moe_operator.spec import ExpertSpec, MixtureSpec
from moe_operator.strategy import OutcomeLimits
from moe_operator.world import Answer, Question
from tests.operator.plan.bodies import expert, mixture, sha

TRIAL = Trial("7" * 64, "e0", sha("e0", "v1"), sha("e0", "v2"))
SAMPLE = {"n": 512, "mean": -0.131, "sd": 0.21, "stable": 2.27, "candidate": 2.14}
SAID = {
    "golden": TRIAL.golden,
    "expert": "e0",
    "stable": TRIAL.stable,
    "candidate": TRIAL.candidate,
    "all": SAMPLE,
    "slices": {"legal": {**SAMPLE, "n": 64}},
    "flippedPercent": 1.3,
}


def test_a_result_is_read() -> None:
    found = read_result(json.dumps(SAID), TRIAL)
    assert (found.all.difference.n, found.all.difference.mean, found.all.stable) == (
        512,
        -0.131,
        2.27,
    )
    assert found.slices["legal"].difference.n == 64
    assert found.flipped_percent == 1.3


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"error": "router a is silent"}, "router a is silent"),
        ({"candidate": "0" * 64}, "it must be of Trial"),
        ({"golden": "abc"}, "result.golden is 'abc'; it must be 64 lower-case"),
        ({"all": {**SAMPLE, "mean": float("nan")}}, "result.all.mean is nan; it must be a finite"),
        ({"all": {**SAMPLE, "sd": -1}}, "result.all.sd is -1; it must be zero or more"),
        ({"all": {**SAMPLE, "n": 0}}, "result.all.n is 0; it must be 1 or more"),
        ({"slices": {"legal": 3}}, "result.slices.legal is 3; it must be an object"),
        ({"flippedPercent": "1.3"}, "result.flippedPercent is '1.3'; it must be a finite number"),
    ],
)
def test_a_result_that_cannot_be_used_says_why(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidDocument) as raised:
        read_result(json.dumps({**SAID, **changes}), TRIAL)
    assert words in str(raised.value)


@pytest.mark.parametrize("text", ["", "Traceback (most recent call last)", "[1]"])
def test_last_words_that_are_no_result_are_named(text: str) -> None:
    with pytest.raises(InvalidDocument, match="result "):
        read_result(text, TRIAL)


STABLE = Version("v1", TRIAL.stable, "file:///v1")
TARGET = Version("v2", TRIAL.candidate, "file:///v2")
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
WEIGHTS = (WeightSince(5, 25), WeightSince(6, 50), WeightSince(7, 100))


def rollout(step: int = 1) -> Rollout:
    began = BEGAN.isoformat()
    return Rollout(2, TARGET, step, began, Outcome.PROGRESSING, "", "s", WEIGHTS)


def sums(version: Version, epoch: int, sessions: int, ratio: float, **more: Any) -> OutcomeSum:
    """Return sessions of 10 tokens each, half of them a tenth better and half a tenth worse."""
    w, x = 10.0 * sessions, 10.0 * sessions * ratio
    xx = 100.0 * sessions * (ratio**2 + 0.01)
    arm = Arm(sessions, w, x, 100.0 * sessions, xx, 100.0 * sessions * ratio)
    return OutcomeSum("e0", version.sha256, epoch, more.get("measure", Measure.LOSS), arm)


def judged(*found: OutcomeSum) -> list[tuple[str, bool | None, str]]:
    limits = OutcomeLimits(max_loss_increase_percent=5.0, min_sessions=30)
    findings = outcome_findings(rollout(), STABLE, found, limits)
    return [(f.name, f.verdict.passed, f.verdict.reason) for f in findings]


def test_nothing_is_judged_of_which_nothing_was_reported() -> None:
    assert judged() == []


def test_sessions_of_all_routers_under_one_weight_are_added_up() -> None:
    halves = [sums(STABLE, 5, 200, 2.0), sums(TARGET, 5, 200, 2.0)] * 2
    ((name, passed, said),) = judged(*halves)
    assert (name, passed) == ("loss", True)
    assert "400 sessions against 400 of stable" in said


def test_sessions_that_were_not_drawn_at_random_do_not_count() -> None:
    after = [sums(STABLE, 7, 500, 2.0), sums(TARGET, 7, 500, 9.0)]
    other = [sums(STABLE, 3, 500, 2.0), sums(TARGET, 3, 500, 9.0)]
    assert judged(*after, *other) == []


def test_of_scores_the_lower_one_is_worse() -> None:
    pairs = [
        sums(STABLE, 6, 500, 2.0, measure=Measure.SCORE),
        sums(TARGET, 6, 500, 1.5, measure=Measure.SCORE),
    ]
    ((name, passed, said),) = judged(*pairs)
    assert (name, passed) == ("score", False)
    assert "+0.500 of negated score" in said
    better = [
        sums(STABLE, 6, 500, 2.0, measure=Measure.SCORE),
        sums(TARGET, 6, 500, 2.5, measure=Measure.SCORE),
    ]
    assert judged(*better)[0][1] is True


ASKED = {"name": "errors", "query": "q{{sha256}}", "maxIncreasePercent": 50}


@pytest.mark.parametrize(
    ("candidate", "stable", "passed"),
    [
        pytest.param(1.5, 1.0, True, id="at the limit"),
        pytest.param(1.51, 1.0, False, id="past the limit"),
        pytest.param(0.1, 0.0, False, id="any increase over nothing"),
        pytest.param(0.0, 0.0, True, id="nothing against nothing"),
        pytest.param(-1.0, -2.0, True, id="of a negative number its size counts"),
        pytest.param(-0.9, -2.0, False, id="past the limit of a negative number"),
        pytest.param(None, 1.0, None, id="the candidate has no number"),
        pytest.param(1.0, None, None, id="stable has no number"),
    ],
)
@pytest.mark.parametrize("late", [False, True])
def test_answers_are_compared_when_they_are_of_this_step(
    candidate: float | None, stable: float | None, passed: bool | None, late: bool
) -> None:
    spec = ExpertSpec.from_body(expert("e0", rollout={"analysis": {"prometheus": [ASKED]}}))
    of = MixtureSpec.from_body(mixture(prometheus={"address": "http://p"}))
    row = ExpertRow("e0", "e0", Role.ROUTED, (0,), None, STABLE, TARGET, rollout=rollout())
    at = BEGAN + timedelta(seconds=-1 if late else 1)
    answers = {
        Question("http://p", f"q{TARGET.sha256}"): Answer(at, candidate, "no data"),
        Question("http://p", f"q{STABLE.sha256}"): Answer(at, stable, "no data"),
    }
    (finding,) = prometheus_findings(row, of, spec, answers)
    assert finding.verdict.passed is (None if late else passed)
    assert finding.verdict.reason.startswith("errors")
    dark = ExpertRow("e0", "e0", Role.ROUTED, (0,), None, STABLE, TARGET, rollout=rollout(0))
    assert list(prometheus_findings(dark, of, spec, answers)) == []
