"""Windows of attempts at a stable version: when an alarm is raised, and when it ends."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from moe_core.document import InvalidDocument, Reader
from moe_operator.drift_spec import OnAlarm
from moe_operator.health import Ailment, Attended, History, Sums, remember, summary
from moe_operator.health_spec import HealthSpec
from moe_operator.spec import Meta

META = Meta("default", "tiny-e0", "uid", 1, "2026-01-01T00:00:00Z", deleting=False)
SPEC = HealthSpec(window_attempts=800, max_error_percent=5, max_norm_change_percent=50)


NOTHING = History()


def of(spec: HealthSpec = SPEC) -> Attended:
    return Attended("v1", "a" * 64, spec, META)


def attempts(count: int, errors: int = 0, norm: float = 2.0) -> Sums:
    """Return attempts of two rows each."""
    rows = 2 * (count - errors)
    return Sums(count, errors, rows, rows * norm)


def after(*came: Sums, history: History = NOTHING, spec: HealthSpec = SPEC) -> History:
    for sums in came:
        history = remember(history, sums, of(spec))
    return history


def test_nothing_is_said_of_answers_that_stay_as_they_are() -> None:
    history = after(*[attempts(50, 1)] * 40)
    assert history.whole_window
    assert history.alarms == {}
    assert history.norm == 2.0
    assert summary(history).endswith(
        "attempts gave no usable answer; the mean norm of its answers is 2"
    )


def test_what_surely_fails_is_told_long_before_the_window_is_full_and_no_accident_is() -> None:
    assert after(attempts(9, 9)).alarms == {}
    failing = after(attempts(20, 12))
    assert "60.0% of the last 20 attempts at v1" in failing.alarms[Ailment.FAILING]
    assert "maxErrorPercent is 5" in failing.alarms[Ailment.FAILING]


@pytest.mark.parametrize(
    ("errors", "alarm"),
    [
        pytest.param([2] * 9, False, id="below"),
        pytest.param([6] * 9, False, id="a little above, perhaps by chance"),
        pytest.param([12] * 9, True, id="above"),
        pytest.param([12] * 9 + [5] * 9, True, id="a little below again"),
        pytest.param([12] * 9 + [3] * 9, False, id="well below again"),
    ],
)
def test_an_alarm_of_failures_ends_well_below_the_limit(errors: list[int], alarm: bool) -> None:
    history = after(*(attempts(100, n) for n in errors))
    assert (Ailment.FAILING in history.alarms) is alarm


def test_chance_alone_seldom_raises_an_alarm() -> None:
    """At a true share just at the limit, each look on a whole window is wrong once in 2,000."""
    rng, raised = random.Random(1), 0
    for _ in range(2000):
        errors = sum(rng.random() < 0.05 for _ in range(800))
        raised += Ailment.FAILING in after(attempts(800, errors)).alarms
    assert raised <= 8


@pytest.mark.parametrize(
    ("norms", "alarm"),
    [
        pytest.param([2.0] * 9 + [2.9] * 9, False, id="larger, within the limit"),
        pytest.param([2.0] * 9 + [3.2] * 9, True, id="larger"),
        pytest.param([2.0] * 9 + [0.9] * 9, True, id="smaller"),
        pytest.param([2.0] * 9 + [3.2] * 9 + [2.9] * 9, True, id="a little within it again"),
        pytest.param([2.0] * 9 + [3.2] * 9 + [2.5] * 9, False, id="well within it again"),
        pytest.param([2.0] * 9 + [20.0], True, id="much larger, in one piece of eight"),
        pytest.param([20.0] * 9, False, id="always so"),
    ],
)
def test_norms_are_compared_with_those_of_the_first_window(norms: list[float], alarm: bool) -> None:
    history = after(*(attempts(100, norm=norm) for norm in norms))
    assert (Ailment.NORM_SHIFTED in history.alarms) is alarm


def test_norms_known_from_before_count_once_a_window_was_seen() -> None:
    history = after(*[attempts(100, norm=4.0)] * 7, history=History(norm=2.0))
    assert history.alarms == {}
    history = after(attempts(100, norm=4.0), history=history)
    said = history.alarms[Ailment.NORM_SHIFTED]
    assert said.startswith(
        "the mean norm of what v1 answers is 4 in the last 800 attempts, and was 2"
    )


def test_a_version_that_answers_nothing_keeps_what_was_said_of_its_norms() -> None:
    shifted = after(*(attempts(100, norm=norm) for norm in [2.0] * 9 + [9.0] * 9))
    silent = after(*[attempts(100, 100)] * 9, history=shifted)
    assert set(silent.alarms) == {Ailment.FAILING, Ailment.NORM_SHIFTED}
    assert after(*[attempts(100, 100)] * 9).norm is None


def test_what_has_no_limit_is_not_looked_at() -> None:
    spec = HealthSpec(800, max_error_percent=5)
    assert list(of(spec).ailments) == [Ailment.FAILING]
    assert after(*(attempts(100, norm=n) for n in [2.0] * 9 + [9.0] * 9), spec=spec).alarms == {}
    spec = HealthSpec(800, max_norm_change_percent=50)
    assert list(of(spec).ailments) == [Ailment.NORM_SHIFTED]
    assert after(attempts(800, 800), spec=spec).alarms == {}


@pytest.mark.parametrize("norm", [math.inf, math.nan, 0.0])
def test_a_mean_norm_that_is_none_is_compared_with_nothing(norm: float) -> None:
    history = after(*(attempts(100, norm=n) for n in [norm] * 9))
    assert (history.norm, history.alarms) == (None, {})


def test_it_is_read_with_its_defaults() -> None:
    read = HealthSpec.read(Reader({"maxErrorPercent": 5}, "spec.health"))
    assert read == HealthSpec(4096, 5, None, OnAlarm.REPORT)
    given = {"windowAttempts": 64, "maxNormChangePercent": 70, "onAlarm": "RollBack"}
    read = HealthSpec.read(Reader(given, "spec.health"))
    assert read == HealthSpec(64, None, 70, OnAlarm.ROLL_BACK)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({}, "spec.health has none of maxErrorPercent, maxNormChangePercent; give one"),
        ({"maxErrorPercent": 0}, "spec.health.maxErrorPercent"),
        ({"maxErrorPercent": 101}, "spec.health.maxErrorPercent"),
        ({"maxErrorPercent": 5, "windowAttempts": 63}, "spec.health.windowAttempts"),
        ({"maxErrorPercent": 5, "onAlarm": "Stop"}, "spec.health.onAlarm"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidDocument, match=sentence):
        HealthSpec.read(Reader(given, "spec.health"))
