"""Replicas that follow simulated loads: neither far behind them nor back and forth.

Each claim is of whole runs with fixed seeds; `python -m tests.benchmarks.scaling` prints them all,
beside the formulas of the HPA and of Knative, on the same requests.
"""

from __future__ import annotations

from functools import partial

import pytest

from moe_operator.autoscaling import Autoscaling
from tests.operator.autoscaling.policies import Hpa, Knative, Ours
from tests.operator.autoscaling.traces import TRACES, steps
from tests.operator.autoscaling.workers import HIGHEST, Run, run

pytestmark = pytest.mark.timeout(600)

SHARE = 0.6
SOON_S = 300  # a change back within it is one too many
BUSY = Autoscaling(1, HIGHEST, utilization=SHARE)
QUICK = Autoscaling(1, HIGHEST, delay_ms=10)
EVEN = [2.0] * 900


def ours(name: str, seed: int = 1, spec: Autoscaling = BUSY) -> Run:
    return run(partial(Ours, spec), TRACES[name](), SHARE, seed)


@pytest.mark.parametrize(
    ("load", "under_percent", "over_percent"),
    [
        pytest.param("steps", 1.0, 45, id="steps"),
        pytest.param("spikes", 9.0, 230, id="spikes: what came is kept for five minutes"),
        pytest.param("daily curve", 4.0, 20, id="a day in an hour"),
        pytest.param("noise", 3.5, 60, id="noise"),
    ],
)
def test_what_is_missing_and_what_is_to_spare_is_bounded(
    load: str, under_percent: float, over_percent: float
) -> None:
    came = ours(load)
    assert came.under_percent <= under_percent
    assert came.over_percent <= over_percent


def test_steps_and_curves_are_followed_without_a_step_back() -> None:
    for load in ("steps", "daily curve"):
        assert ours(load).reversals(SOON_S) == 0, load


@pytest.mark.parametrize("load", ["steps", "spikes", "noise"])
def test_less_is_missing_than_with_the_formula_of_the_hpa_and_no_more_goes_back_and_forth(
    load: str,
) -> None:
    came, other = ours(load, seed=2), run(partial(Hpa, SHARE), TRACES[load](), SHARE, 2)
    assert came.under_percent < other.under_percent
    assert came.wait_ms(99) < other.wait_ms(99)
    assert came.reversals(SOON_S) <= other.reversals(SOON_S)


def test_knative_goes_back_and_forth_where_this_does_not() -> None:
    other = run(partial(Knative, SHARE), steps(), SHARE, 1)
    assert other.reversals(SOON_S) > 20
    assert ours("steps").reversals(SOON_S) == 0


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("spec", [BUSY, QUICK], ids=["busy share", "delay"])
def test_an_even_load_changes_nothing_for_long(seed: int, spec: Autoscaling) -> None:
    came = run(partial(Ours, spec), EVEN, SHARE, seed)
    assert came.changes <= 2
    assert came.reversals(SOON_S) == 0


def test_a_target_of_delay_is_met_with_as_few_as_meet_it() -> None:
    came = run(partial(Ours, QUICK), EVEN, SHARE, 1)
    settled = int(came.asked[-1])
    waits_ms = 1000 * came.waits_s[len(came.waits_s) // 2 :].mean()
    assert waits_ms <= 10
    fixed = Autoscaling(settled - 1, settled - 1, utilization=SHARE)
    fewer = run(partial(Ours, fixed), EVEN, SHARE, 1)
    assert 1000 * fewer.waits_s.mean() > 10
