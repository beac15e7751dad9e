"""How far two spreads are apart, and what chance may do: against formulas, and by simulation."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_core.drift import GROUPS, Spread, distance, entropy_bits, group_of, groups_seen, spread
from tests.operator.drift.traffic import Traffic

KINDS = {
    "code": (0.7, 0.1, 0.1, 0.1),
    "law": (0.1, 0.7, 0.1, 0.1),
    "math": (0.05, 0.05, 0.8, 0.1),
    "talk": (0.1, 0.1, 0.1, 0.7),
}
EVEN = dict.fromkeys(KINDS, 1.0)
Z = NormalDist().inv_cdf(0.9995)


def served(seed: int, sessions: int, **mix: float) -> Spread:
    traffic = Traffic(KINDS, seed)
    traffic.serve(sessions, mix or EVEN)
    return traffic.spread


def test_psi_is_the_sum_that_it_is_named_for() -> None:
    """Of endlessly many draws nothing is smoothed, and chance has no share."""
    far = distance(Spread((0.5, 0.5), 1e12), Spread((0.8, 0.2), 1e12), Z)
    expected = 0.3 * math.log(0.8 / 0.5) - 0.3 * math.log(0.2 / 0.5)
    assert far.psi == pytest.approx(expected)
    assert far.least == pytest.approx(expected, rel=1e-4)
    assert far.chance < 1e-11


@given(
    st.lists(st.floats(0, 1), min_size=2, max_size=6),
    st.lists(st.floats(0, 1), min_size=6, max_size=6),
    st.floats(1, 1e6),
    st.floats(1, 1e6),
)
def test_a_distance_is_finite_and_none_to_itself(
    one: list[float], other: list[float], n: float, m: float
) -> None:
    base = Spread(tuple(x / (sum(one) or 1) for x in one), n)
    live = Spread(tuple(x / (sum(other) or 1) for x in other[: len(one)]), m)
    found = distance(base, live, Z)
    assert math.isfinite(found.psi)
    assert math.isfinite(found.least)
    assert found.psi >= 0
    assert found.least <= found.psi
    assert found.likely <= found.psi
    same = distance(base, base, Z)
    assert same.psi == 0
    assert same.least <= 0


def test_an_expert_that_gets_nothing_any_more_is_far_and_not_endlessly_so() -> None:
    found = distance(Spread((0.5, 0.5), 100.0), Spread((1.0, 0.0), 100.0), Z)
    assert 1 < found.psi < 5


def test_sessions_of_one_kind_each_are_worth_far_fewer_draws_than_their_rows() -> None:
    """And what chance makes of them is what is foretold, on average over many."""
    found, foretold, worth = [], [], []
    for seed in range(60):
        base, live = served(1000 + seed, 200), served(seed, 200)
        seen = distance(base, live, Z)
        found.append(seen.psi)
        foretold.append(seen.chance)
        worth.append(live.effective)
    rows = 200 * 64
    assert np.mean(worth) < rows / 10
    assert np.mean(found) == pytest.approx(np.mean(foretold), rel=0.35)


def test_independent_rows_are_worth_themselves() -> None:
    worth = []
    for seed in range(40):
        traffic = Traffic({"all": (0.25,) * 4}, seed, rows_of_session=1)
        traffic.serve(4000, {"all": 1.0})
        worth.append(traffic.spread.effective)
    assert np.mean(worth) == pytest.approx(4000, rel=0.2)


@pytest.mark.parametrize("sessions", [32, 64, 256])
def test_the_lower_bound_is_hardly_ever_above_what_is_true(sessions: int) -> None:
    """Of the same mix that is 0, however few sessions there were; of another one, its PSI."""
    base = served(7, 20_000)
    shifted = {**EVEN, "law": 5.0}
    true = distance(base, served(8, 20_000, **shifted), Z).likely
    above = dict.fromkeys(("same", "shifted"), 0)
    for seed in range(150):
        above["same"] += distance(base, served(seed, sessions), Z).least > 0
        above["shifted"] += distance(base, served(seed, sessions, **shifted), Z).least > true
    assert above["same"] <= 1
    assert above["shifted"] <= 3


@pytest.mark.parametrize(
    ("sizes", "seen"),
    [
        pytest.param([1] * GROUPS, 16.0, id="all groups alike"),
        pytest.param([5] + [0] * 15, 1.0, id="one session"),
        pytest.param([2, 2] + [0] * 14, 2.0, id="two of them"),
        pytest.param([0] * GROUPS, 0.0, id="none"),
    ],
)
def test_groups_that_are_unlike_count_for_fewer(sizes: list[int], seen: float) -> None:
    pairs = [count for size in sizes for count in (size, size)]
    assert groups_seen(pairs, 2) == pytest.approx(seen)
    assert (spread(pairs, 2) is None) == (seen < 8)


def test_a_group_is_a_function_of_the_session_alone_and_all_are_used() -> None:
    groups = [group_of(f"session-{n}") for n in range(1000)]
    assert set(groups) == set(range(GROUPS))
    assert groups[:3] == [group_of(f"session-{n}") for n in range(3)]


def test_entropy_counts_even_shares() -> None:
    assert entropy_bits((0.25,) * 4) == pytest.approx(2)
    assert entropy_bits((1.0, 0.0)) == 0
