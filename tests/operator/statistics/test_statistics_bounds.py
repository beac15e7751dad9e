"""Bounds of differences: Student's quantiles as printed in tables, sums of clusters, boundaries."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_operator import paired, sequential
from moe_operator.paired import Paired, t_quantile
from moe_operator.sequential import Arm, Difference, Stratum, difference, ratio_variance

# Upper percentage points of Student's t, as statistical tables have them.
TABLE = [
    (0.995, 1, 63.657),
    (0.995, 2, 9.925),
    (0.995, 3, 5.841),
    (0.995, 7, 3.499),
    (0.975, 10, 2.228),
    (0.9995, 5, 6.869),
    (0.995, 30, 2.750),
    (0.95, 120, 1.658),
    (0.995, 1000, 2.581),
    (0.5, 9, 0.0),
]

# (tokens, bits per token) of one session
Session = tuple[int, float]
sessions = st.lists(st.tuples(st.integers(1, 4096), st.floats(0.0, 16.0)), min_size=2, max_size=20)
levels = st.floats(1e-6, 0.49)
variances = st.floats(1e-9, 1e3)


def arm(found: list[Session]) -> Arm:
    return sum((one(w, w * loss) for w, loss in found), Arm())


def one(w: float, x: float) -> Arm:
    return Arm(1, w, x, w * w, x * x, w * x)


def close(a: Arm, b: Arm) -> bool:
    fields = ("sessions", "w", "x", "ww", "xx", "wx")
    return all(math.isclose(getattr(a, f), getattr(b, f), rel_tol=1e-9) for f in fields)


@pytest.mark.parametrize(("p", "freedom", "printed"), TABLE)
def test_quantiles_are_those_of_tables(p: float, freedom: int, printed: float) -> None:
    assert t_quantile(p, freedom) == pytest.approx(printed, abs=6e-4)


@pytest.mark.parametrize("p", [0.9, 0.995, 1 - 0.005 / 64])
def test_the_expansion_goes_on_where_the_exact_quantile_ends(p: float) -> None:
    steps = [a - b for a, b in pairwise(t_quantile(p, n) for n in range(195, 206))]
    assert steps == sorted(steps, reverse=True)
    assert steps[-1] > 0


@given(levels, st.integers(1, 400))
def test_quantiles_fall_to_the_normal_ones(alpha: float, freedom: int) -> None:
    assert t_quantile(1 - alpha, freedom) >= t_quantile(1 - alpha, freedom + 1)
    assert t_quantile(1 - alpha, freedom) >= t_quantile(1 - alpha, 10**7)


@given(st.floats(-9, 9), st.floats(0, 9), st.integers(2, 600), levels)
def test_paired_bounds_lie_around_the_mean(mean: float, sd: float, n: int, alpha: float) -> None:
    lower, upper = paired.bounds(Paired(n, mean, sd), alpha)
    assert lower <= mean <= upper
    assert mean - lower == pytest.approx(upper - mean)


def test_pairs_that_do_not_differ_leave_no_doubt() -> None:
    assert paired.bounds(Paired(8, 0.0, 0.0), 0.005) == (0.0, 0.0)


def test_one_pair_bounds_nothing() -> None:
    assert paired.bounds(Paired(1, 0.5, 0.0), 0.005) == (-math.inf, math.inf)


@given(sessions, sessions)
def test_arms_add_up_in_any_order(a: list[Session], b: list[Session]) -> None:
    assert close(arm(a) + arm(b), arm(a + b))
    assert close(arm(a) + arm(b), arm(b) + arm(a))
    assert arm(a) + Arm() == arm(a)


@given(sessions)
def test_the_variance_is_that_of_residuals_over_clusters(found: list[Session]) -> None:
    w = np.array([tokens for tokens, _ in found], dtype=float)
    x = np.array([tokens * loss for tokens, loss in found])
    residuals = x - x.sum() / w.sum() * w
    n = len(found)
    wanted = n / (n - 1) * (residuals**2).sum() / w.sum() ** 2
    assert ratio_variance(arm(found)) == pytest.approx(wanted, rel=1e-6, abs=1e-9)


@given(sessions, sessions, st.floats(0.0, 8.0), st.integers(2, 9))
def test_a_loss_added_to_all_and_other_units_of_tokens_change_nothing_else(
    a: list[Session], b: list[Session], shift: float, times: int
) -> None:
    found = difference([Stratum(arm(a), arm(b))], 2)
    shifted = [[(w * times, loss + shift) for w, loss in each] for each in (a, b)]
    again = difference([Stratum(arm(shifted[0]), arm(shifted[1]))], 2)
    assert found is not None
    assert again is not None
    assert again.mean == pytest.approx(found.mean, rel=1e-6, abs=1e-9)
    assert again.variance == pytest.approx(found.variance, rel=1e-6, abs=1e-9)


@given(sessions, sessions)
def test_arms_exchanged_turn_the_sign(a: list[Session], b: list[Session]) -> None:
    there, back = difference([Stratum(arm(a), arm(b))], 2), difference([Stratum(arm(b), arm(a))], 2)
    assert there is not None
    assert back is not None
    assert there.mean == pytest.approx(-back.mean, abs=1e-12)
    assert there.variance == pytest.approx(back.variance)


@given(sessions, sessions, st.integers(2, 5))
def test_more_strata_alike_keep_the_mean_and_divide_the_variance(
    a: list[Session], b: list[Session], times: int
) -> None:
    stratum = Stratum(arm(a), arm(b))
    once, often = difference([stratum], 2), difference([stratum] * times, 2)
    assert once is not None
    assert often is not None
    assert often.mean == pytest.approx(once.mean, abs=1e-12)
    assert often.variance == pytest.approx(once.variance / times)
    assert often.sessions == times * once.sessions


def test_strata_keep_the_hour_apart_from_the_version() -> None:
    easy, hard = [(100, 1.0), (200, 1.1), (100, 0.9)], [(100, 3.0), (200, 3.1), (100, 2.9)]
    found = difference([Stratum(arm(easy), arm(easy * 9)), Stratum(arm(hard * 9), arm(hard))], 2)
    assert found is not None
    assert found.mean == pytest.approx(0.0, abs=1e-12)


def test_too_few_sessions_of_either_arm_tell_nothing() -> None:
    few, many = arm([(9, 1.0)] * 29), arm([(9, 1.0)] * 30)
    assert difference([]) is None
    assert difference([Stratum(few, many), Stratum(many, few)]) is None
    found = difference([Stratum(few, many), Stratum(many, many)])
    assert found is not None
    assert found.sessions == 60


@given(st.floats(-9, 9), variances, variances, levels, levels, st.floats(1e-4, 10))
def test_anytime_bounds_narrow_with_evidence_and_with_what_is_risked(
    mean: float, v: float, more: float, a: float, b: float, scale: float
) -> None:
    lower, upper = sequential.bounds(Difference(mean, v, 99), a, scale)
    assert lower <= mean <= upper
    assert sequential.bounds(Difference(mean, v + more, 99), a, scale)[0] <= lower
    other, _ = sequential.bounds(Difference(mean, v, 99), b, scale)
    assert other <= lower if b <= a else other >= lower
    if b > a * (1 + 1e-6):  # nearer than that, both may round to one number
        assert other > lower


@given(st.floats(-9, 9), variances, levels, st.floats(1e-3, 10), st.floats(1e-2, 100))
def test_anytime_bounds_know_no_unit(
    mean: float, v: float, alpha: float, scale: float, unit: float
) -> None:
    lower, upper = sequential.bounds(Difference(mean, v, 99), alpha, scale)
    found = Difference(mean * unit, v * unit**2, 99)
    again = sequential.bounds(found, alpha, scale * unit)
    assert again == pytest.approx((lower * unit, upper * unit), rel=1e-6, abs=1e-9)


@given(variances, levels)
def test_looking_often_costs_width(v: float, alpha: float) -> None:
    lower, _ = sequential.bounds(Difference(0.0, v, 99), alpha, 1.0)
    assert lower < -t_quantile(1 - alpha, 10**7) * math.sqrt(v)


def test_a_margin_in_percent_is_of_what_stable_loses() -> None:
    strata = [Stratum(arm([(10, 9.0)]), arm([(10, 2.0)])), Stratum(Arm(), arm([(30, 4.0)]))]
    assert sequential.absolute(1.0, strata) == pytest.approx(0.035)
    assert sequential.absolute(1.0, []) == 0.0


@pytest.mark.parametrize(("alpha", "scale"), [(0.0, 1.0), (0.5, 1.0), (0.01, 0.0), (math.nan, 1.0)])
def test_bad_levels_and_scales_are_named(alpha: float, scale: float) -> None:
    with pytest.raises(ValueError, match="alpha is"):
        sequential.bounds(Difference(0.0, 1.0, 99), alpha, scale)


@pytest.mark.parametrize(
    ("n", "mean", "sd"), [(0, 0.0, 0.0), (2, math.nan, 0.0), (2, 0.0, -1.0), (2, 0.0, math.inf)]
)
def test_bad_samples_are_named(n: int, mean: float, sd: float) -> None:
    with pytest.raises(ValueError, match=f"is {n if n == 0 else mean}"):
        Paired(n, mean, sd)
    with pytest.raises(ValueError, match="alpha is"):
        paired.bounds(Paired(2, 0.0, 1.0), 0.5)
