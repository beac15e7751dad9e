"""Verdicts as tables: what is seen of candidate and stable, and what follows."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_operator.shares import attempts_above, mean_norm, quantile_us
from moe_operator.strategy import Limits
from moe_operator.verdict import Evidence, judge
from moe_operator.window import Window

BOUNDS_US = (1_000, 2_000, 4_000, 50_000)
GOOD = Window(
    lasted_s=60,
    requests=100,
    rows=1000,
    norm_sum=1000.0,
    latency_counts=(50, 50, 0, 0, 0),
    latency_bounds_us=BOUNDS_US,
)
NOTHING = Window()


def seen(candidate: Window, stable: Window = GOOD, *, lost: bool = False) -> Evidence:
    return Evidence(candidate, stable, lost, Limits(), 20)


def loaded(sessions: int, percent: float) -> Window:
    """Return what sessions of 1,000 pairs each sent, so many percent of it beyond capacity."""
    pairs = 1000 * sessions
    overflowing = round(pairs * percent / 100)
    return replace(
        GOOD, session_pairs=pairs, overflow_pairs=overflowing, overflow_sessions=sessions
    )


@pytest.mark.parametrize(
    ("evidence", "passed", "words"),
    [
        pytest.param(seen(GOOD), True, "100 requests, 1000 rows seen", id="as good as stable"),
        pytest.param(seen(NOTHING), None, "0 of 20 requests, 0 rows seen", id="nothing seen"),
        pytest.param(seen(GOOD, NOTHING), True, "100 requests", id="stable saw nothing"),
        pytest.param(
            seen(replace(GOOD, requests=1, rows=8, nonfinite_rows=1)),
            False,
            "1 of 8 rows are not finite",
            id="one row that is not finite, below minRequests",
        ),
        pytest.param(
            seen(replace(GOOD, norm_sum=float("nan"))), False, "not finite", id="a norm of NaN"
        ),
        pytest.param(
            seen(replace(GOOD, requests=10, errors=2)),
            None,
            "8 of 20 requests",
            id="two errors are too few to count",
        ),
        pytest.param(
            seen(replace(GOOD, requests=11, errors=3)),
            False,
            "3 of 11 attempts failed, 27.3% against 0.0% of stable; maxErrorPercent is 1",
            id="three errors of eleven, below minRequests",
        ),
        pytest.param(
            seen(replace(GOOD, errors=5), replace(GOOD, errors=5)),
            True,
            "95 requests",
            id="as many errors as stable",
        ),
        pytest.param(
            seen(replace(NOTHING, requests=9, errors=1), lost=True),
            False,
            "all its pods are gone under load, after 9 requests, 1 of them failed",
            id="gone under load",
        ),
        pytest.param(seen(NOTHING, lost=True), None, "0 of 20", id="gone without load"),
        pytest.param(
            seen(replace(GOOD, norm_sum=10_001.0)),
            False,
            "mean norm of the answers is 10 against 1 of stable; maxNormIncreasePercent is 900",
            id="norm grew past the limit",
        ),
        pytest.param(seen(replace(GOOD, norm_sum=9_999.0)), True, "", id="norm at the limit"),
        pytest.param(
            seen(replace(GOOD, latency_counts=(0, 0, 0, 100, 0))),
            False,
            "median latency is 27.0 ms against 1.0 ms of stable",
            id="median latency grew",
        ),
        pytest.param(
            seen(replace(GOOD, latency_counts=(0, 0, 100, 0, 0))),
            True,
            "",
            id="a few milliseconds more are within the floor",
        ),
        pytest.param(
            seen(
                replace(GOOD, latency_counts=(400, 0, 0, 100, 0)),
                replace(GOOD, latency_counts=(500, 0, 0, 0, 0)),
            ),
            False,
            "p99 latency is 47.7 ms against 1.0 ms of stable; maxTailLatencyIncreasePercent is 400",
            id="the tail grew",
        ),
        pytest.param(
            seen(
                replace(GOOD, latency_counts=(490, 0, 0, 10, 0)),
                replace(GOOD, latency_counts=(500, 0, 0, 0, 0)),
            ),
            None,
            "maxTailLatencyIncreasePercent is 400; looked at longer, after 500 attempts in 60 s",
            id="ten of 500 may be a tail by chance",
        ),
        pytest.param(
            seen(replace(GOOD, latency_counts=(0, 0, 0, 100, 0), lasted_s=21.9)),
            None,
            "looked at longer, after 100 attempts in 21 s",
            id="one busy moment is no slow version",
        ),
        pytest.param(
            seen(replace(GOOD, latency_counts=(2, 2, 0, 16, 0))),
            None,
            "looked at longer, after 20 attempts in 60 s",
            id="16 of 20 may be slow by chance",
        ),
        pytest.param(
            seen(replace(GOOD, latency_counts=(1, 1, 0, 38, 0))),
            False,
            "median latency is 25.8 ms",
            id="38 of 40 are slow",
        ),
        pytest.param(
            seen(
                replace(GOOD, latency_counts=(489, 0, 0, 10, 0)),
                replace(GOOD, latency_counts=(500, 0, 0, 0, 0)),
            ),
            True,
            "",
            id="too few attempts for a tail",
        ),
        pytest.param(
            seen(replace(NOTHING, requests=5, rows=5, shadow_requests=15, shadow_rows=60)),
            True,
            "20 requests, 65 rows seen",
            id="copies stand in for requests",
        ),
        pytest.param(
            seen(replace(NOTHING, shadow_requests=9, shadow_rows=9, shadow_nonfinite_rows=1)),
            False,
            "1 of 9 rows are not finite",
            id="one copy that is not finite",
        ),
        pytest.param(
            seen(replace(NOTHING, shadow_requests=9, shadow_errors=3)),
            False,
            "3 of 9 attempts failed",
            id="copies that fail",
        ),
        pytest.param(
            seen(replace(GOOD, latency_counts=(0, 0, 0, 19, 0))),
            True,
            "",
            id="too few attempts for a median",
        ),
        pytest.param(
            seen(loaded(100, 50), loaded(1000, 20)),
            False,
            "in 100 sessions 50.0% of 100000 pairs are beyond capacity, against 20.0% in 1000 of "
            "stable; maxOverflowIncreasePercent is 10",
            id="rows crowd at some experts",
        ),
        pytest.param(
            seen(loaded(1000, 20), loaded(100, 50)), True, "", id="rows spread more evenly"
        ),
        pytest.param(
            seen(loaded(100_000, 30), loaded(100_000, 20)), True, "", id="overflow at the limit"
        ),
        pytest.param(
            seen(loaded(50, 50), loaded(1000, 20)), True, "", id="sessions may crowd by chance"
        ),
        pytest.param(
            seen(loaded(1000, 50), loaded(50, 20)), True, "", id="few sessions are no measure"
        ),
        pytest.param(
            seen(loaded(1000, 90), loaded(29, 0)), True, "", id="too few sessions of stable"
        ),
        pytest.param(
            seen(loaded(29, 90), loaded(1000, 0)), True, "", id="too few sessions for overflow"
        ),
        pytest.param(
            seen(replace(loaded(1000, 90), requests=19), loaded(1000, 0)),
            None,
            "19 of 20 requests",
            id="rows crowd, below minRequests",
        ),
    ],
)
def test_the_first_objection_wins(evidence: Evidence, passed: bool | None, words: str) -> None:
    verdict = judge(evidence)
    assert verdict.passed is passed
    assert words in verdict.reason


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        pytest.param((10, 0, 0, 0, 0), 500.0, id="middle of the first bucket"),
        pytest.param((5, 5, 0, 0, 0), 1000.0, id="between two buckets"),
        pytest.param((0, 0, 0, 0, 10), 50_000.0, id="above the last bound counts as that one"),
        pytest.param((1, 0, 0, 2, 0), 15_500.0, id="linear within a bucket"),
    ],
)
def test_the_median_of_a_histogram(counts: tuple[int, ...], expected: float) -> None:
    window = replace(NOTHING, latency_counts=counts, latency_bounds_us=BOUNDS_US)
    assert quantile_us(window, 0.5) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("bar_us", "expected"),
    [
        pytest.param(0.0, 60, id="all but none are above nothing"),
        pytest.param(1_000.0, 50, id="at a bound"),
        pytest.param(3_000.0, 35, id="linear within a bucket"),
        pytest.param(49_999.0, 10, id="those above the last bound are above less than that"),
        pytest.param(50_000.0, 10, id="at the last bound"),
        pytest.param(50_001.0, 0, id="how long those above the last bound took is not known"),
    ],
)
def test_attempts_above_a_bar(bar_us: float, expected: float) -> None:
    window = replace(NOTHING, latency_counts=(10, 10, 10, 20, 10), latency_bounds_us=BOUNDS_US)
    assert attempts_above(window, bar_us) == pytest.approx(expected, abs=0.01)


windows = st.builds(
    Window,
    requests=st.integers(0, 10_000),
    rows=st.integers(0, 100_000),
    errors=st.integers(0, 100),
    nonfinite_rows=st.integers(0, 3),
    norm_sum=st.floats(0, 1e9),
    latency_counts=st.tuples(*[st.integers(0, 1000)] * 5),
    latency_bounds_us=st.just(BOUNDS_US),
    session_pairs=st.integers(100_000, 10_000_000),
    overflow_pairs=st.integers(0, 100_000),
    overflow_sessions=st.integers(0, 10_000),
)


@given(windows, windows, st.booleans())
def test_nothing_passes_below_the_requests_that_are_asked_for(
    candidate: Window, stable: Window, lost: bool
) -> None:
    verdict = judge(seen(candidate, stable, lost=lost))
    assert verdict.reason
    if candidate.requests < 20:
        assert verdict.passed is not True
    if candidate.nonfinite_rows:
        assert verdict.passed is False


@pytest.mark.parametrize(
    "ab",
    [
        pytest.param((0.5, 2.0), id="20%, give or take 21"),
        pytest.param((3.0, 12.0), id="20%, give or take 10"),
        pytest.param((20.0, 80.0), id="20%, give or take 4"),
    ],
)
def test_sessions_that_differ_much_are_no_objection_however_often_looked_at(
    ab: tuple[float, float],
) -> None:
    """Shares of sessions are drawn from Beta distributions, whichever version they are on."""
    draw, objected = random.Random(7), 0
    for _ in range(200):
        percents = [0.0, 0.0]
        for sessions in range(1, 101):
            for arm in (0, 1):
                percents[arm] += 100 * draw.betavariate(*ab)
            candidate, stable = (loaded(sessions, total / sessions) for total in percents)
            if judge(seen(candidate, stable)).passed is False:
                objected += 1
                break
    assert objected <= 1


def seconds_until_objection(draw: random.Random, slow: float, slow_of_stable: float) -> int:
    """Return after how many seconds of ten and 90 requests there is an objection; 0 within 60 none.

    Each version is slow in so many seconds, each in seconds of its own, drawn by chance.
    """
    windows = [replace(GOOD, latency_counts=(0,) * 5, lasted_s=0.0)] * 2
    for second in range(1, 61):
        for arm, (requests, share) in enumerate(((10, slow), (90, slow_of_stable))):
            counts = list(windows[arm].latency_counts)
            counts[3 if draw.random() < share else 0] += requests
            windows[arm] = replace(
                windows[arm], latency_counts=tuple(counts), lasted_s=float(second)
            )
        if judge(seen(*windows)).passed is False:
            return second
    return 0


@pytest.mark.parametrize("slow", [0.02, 0.1, 0.3, 0.4])
def test_busy_moments_are_no_objection_however_often_looked_at(slow: float) -> None:
    draw = random.Random(5)
    objected = sum(seconds_until_objection(draw, slow, slow) > 0 for _ in range(200))
    assert objected <= 2  # one in a hundred


def test_a_slow_version_is_objected_to_though_stable_is_busy_at_times() -> None:
    draw = random.Random(6)
    assert seconds_until_objection(draw, 1.0, 0.0) == 22
    found = [seconds_until_objection(draw, 0.9, 0.1) for _ in range(200)]
    assert sum(seconds > 0 for seconds in found) >= 190


@given(windows)
def test_a_version_never_objects_to_itself(window: Window) -> None:
    healthy = replace(window, nonfinite_rows=0)
    assert judge(seen(healthy, healthy)).passed is not False
    assert mean_norm(healthy) >= 0
