"""What the rules of evidence do to whole rollouts, on losses that the example model really has.

Each claim is a share of many simulated rollouts with a fixed seed; `python -m
tests.benchmarks.verdicts` prints them all, with the sessions that they took.
"""

from __future__ import annotations

import pytest

from moe_operator.quality import PASS_ALPHA
from tests.operator.statistics.recording import Recording
from tests.operator.statistics.rollouts import (
    FEW,
    OFTEN,
    Canary,
    End,
    Traffic,
    ever_better,
    once_only,
    percent,
    repeat,
    roll_out,
    run_canary,
)

pytestmark = pytest.mark.timeout(600)  # the recording is computed in the first of them

HARM = 0.05
"""Bits per byte that must be found out."""

# A margin that as many sessions decide as these tests have time for.
WIDE = Canary(margin_percent=5.0, step_sessions=1_000, look=50, most=6_000)


@pytest.fixture(scope="module")
def identical(recording: Recording) -> Traffic:
    return Traffic.of(recording, recording.bits["stable"])


@pytest.fixture(scope="module")
def harmed(recording: Recording) -> Traffic:
    return Traffic.of(recording, recording.harmed(HARM))


@pytest.mark.parametrize(
    "canary",
    [
        pytest.param(Canary(most=10_000), id="margin 1%"),
        pytest.param(WIDE, id="margin 5%"),
        pytest.param(OFTEN, id="no margin at all"),
    ],
)
def test_an_identical_version_is_hardly_ever_rolled_back(
    identical: Traffic, canary: Canary
) -> None:
    ended = repeat(1_000, 1, lambda rng: roll_out(identical, rng, canary=canary))
    assert percent(ended, End.TAKEN_BACK) <= 1.0
    assert all(each.by == "outcomes" for each in ended)


def test_the_golden_set_always_passes_an_identical_version(identical: Traffic) -> None:
    ended = repeat(1_000, 2, lambda rng: roll_out(identical, rng, sequences=8))
    assert percent(ended, End.PROMOTED) == 100.0


def test_looking_again_with_the_level_of_one_look_would_roll_back_the_innocent(
    identical: Traffic,
) -> None:
    ended = repeat(1_000, 1, lambda rng: run_canary(identical, OFTEN, rng, once_only))
    assert percent(ended, End.TAKEN_BACK) > 3.0


def test_the_boundary_holds_where_it_is_tightest_and_sessions_are_few(identical: Traffic) -> None:
    ended = repeat(1_000, 1, lambda rng: run_canary(identical, FEW, rng, ever_better()))
    assert percent(ended, End.TAKEN_BACK) <= 100 * PASS_ALPHA


def test_at_its_margin_a_version_is_decided_wrongly_as_seldom_as_said(
    recording: Recording,
) -> None:
    at = recording.harmed(WIDE.margin_percent / 100 * float(recording.bits["stable"].mean()))
    traffic = Traffic.of(recording, at)
    ended = repeat(1_000, 3, lambda rng: run_canary(traffic, WIDE, rng))
    assert percent(ended, End.TAKEN_BACK) <= 1.0
    assert percent(ended, End.PROMOTED) <= 100 * PASS_ALPHA


def test_harm_is_caught_by_the_golden_set(harmed: Traffic) -> None:
    ended = repeat(1_000, 4, lambda rng: roll_out(harmed, rng))
    assert percent(ended, End.PROMOTED) == 0.0
    assert percent(ended, End.TAKEN_BACK) >= 95.0


def test_harm_is_caught_by_outcomes_alone(harmed: Traffic) -> None:
    ended = repeat(200, 5, lambda rng: run_canary(harmed, Canary(most=60_000, look=400), rng))
    assert percent(ended, End.PROMOTED) == 0.0
    assert percent(ended, End.TAKEN_BACK) >= 95.0


def test_drift_tells_nothing_of_quality(recording: Recording) -> None:
    """Much changed and better is promoted, little changed and damaged is not."""
    assert recording.drift["better"] > 0.4
    assert recording.drift["damaged"] < 0.3
    better = Traffic.of(recording, recording.bits["better"])
    damaged = Traffic.of(recording, recording.bits["damaged"])
    promoted = repeat(1_000, 6, lambda rng: roll_out(better, rng, canary=WIDE))
    assert percent(promoted, End.PROMOTED) >= 99.0
    stopped = repeat(1_000, 7, lambda rng: roll_out(damaged, rng, canary=WIDE))
    assert percent(stopped, End.PROMOTED) == 0.0
    assert percent(stopped, End.TAKEN_BACK) >= 50.0


def test_a_small_golden_set_waits_rather_than_passes(harmed: Traffic) -> None:
    ended = repeat(1_000, 8, lambda rng: roll_out(harmed, rng, sequences=64))
    assert percent(ended, End.PROMOTED) <= 1.0
    assert percent(ended, End.WAITING) >= 50.0


def test_recorded_sessions_lose_what_the_recording_says(
    recording: Recording, harmed: Traffic
) -> None:
    w, x = harmed.moments[..., 1].sum(1), harmed.moments[..., 2].sum(1)
    stable, candidate = x / w
    assert candidate - stable == pytest.approx(HARM, abs=0.005)
    assert stable == pytest.approx(recording.bits["stable"].mean(), abs=0.02)
