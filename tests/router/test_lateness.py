"""When a worker counts as late, for how long, and how much that weighs."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_router.lateness import HALF_LIFE_S, NOISE_S, Lateness

# A worker that computes ten rows in a millisecond.
ROWS, BUSY_US = 10_000, 1_000_000

times = st.floats(0, 10)


def after(*late_s: float, explained_s: float = 0.0) -> Lateness:
    """Return what is thought of these answers, which came at the same time."""
    lateness = Lateness()
    for one in late_s:
        lateness.answered(one + explained_s, explained_s, 0.0)
    return lateness


@pytest.mark.parametrize(
    ("lateness", "now_s", "rows"),
    [
        pytest.param(Lateness(), 0, 0, id="nothing is known yet"),
        pytest.param(after(0.1), 0, 500, id="one answer that is late counts by half"),
        pytest.param(after(0.1, 0.1), 0, 750, id="two of them by three quarters"),
        pytest.param(after(0.1, explained_s=3.0), 0, 500, id="time in line and computing is none"),
        pytest.param(after(0.1, 0.0, 0.0, 0.0), 0, 0, id="it is soon forgiven"),
        pytest.param(after(0.1), HALF_LIFE_S, 250, id="and forgotten by half in a second"),
        pytest.param(after(0.1), 2 * HALF_LIFE_S, 0, id="until it is noise"),
        pytest.param(after(0.03), 0, 0, id="a moment without a processor is noise"),
    ],
)
def test_the_rows_that_it_counts_as(lateness: Lateness, now_s: float, rows: int) -> None:
    assert lateness.rows(now_s, ROWS, BUSY_US) == pytest.approx(rows, abs=1)


def test_a_worker_that_has_computed_nothing_is_not_late() -> None:
    assert after(1.0).rows(0.0, 0, 0) == 0


@given(st.lists(st.tuples(times, times, times), min_size=1))
def test_it_is_never_more_than_the_latest_answer_was_and_only_falls_by_itself(
    answers: list[tuple[float, float, float]],
) -> None:
    lateness, now_s = Lateness(), 0.0
    for took_s, explained_s, passed_s in answers:
        now_s += passed_s
        lateness.answered(took_s, explained_s, now_s)
        assert 0 <= lateness.mean_s(now_s) <= max(took for took, _, _ in answers)
    seen = [lateness.mean_s(now_s + later) for later in range(8)]
    assert all(later <= sooner for sooner, later in pairwise(seen))
    assert seen[-1] < max(NOISE_S, seen[0] / 100)
