"""Limits of 0: what is as good as stable passes them, what is worse does not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_core.document import InvalidDocument, Reader
from moe_core.policy import Policy
from moe_core.rows import GateVariant
from moe_operator import verdict
from moe_operator.gate_verdict import Routing, routing_findings
from moe_operator.paired import Paired
from moe_operator.quality import Compared, GoldenResult, golden, outcomes
from moe_operator.router_report import LayerShadow
from moe_operator.sequential import Arm, Stratum
from moe_operator.shares import lowest_percent
from moe_operator.strategy import RoutingLimits, Strategy
from moe_operator.verdict import Evidence, Verdict
from moe_operator.window import Window

GOOD = Window(
    lasted_s=60,
    requests=600,
    rows=6000,
    norm_sum=6000.0,
    latency_counts=(300, 290, 10, 0, 0),
    latency_bounds_us=(1_000, 2_000, 50_000, 100_000),
    session_pairs=47_000,
    overflow_sessions=47,
)
ZERO = (
    "maxErrorPercent",
    "maxLatencyIncreasePercent",
    "maxTailLatencyIncreasePercent",
    "maxOverflowIncreasePercent",
)


def strategy(**analysis: Any) -> Strategy:
    return Strategy.read(Reader({"analysis": analysis}, "spec.rollout"))


def judged(name: str, candidate: Window, stable: Window = GOOD) -> Verdict:
    """Judge by one check, all limits that may be 0 being 0."""
    limits = strategy(**dict.fromkeys(ZERO, 0)).limits
    (check,) = (check for check in verdict.CHECKS if check.name == name)
    return check.judge(Evidence(candidate, stable, False, limits, 0))


@pytest.mark.parametrize("check", [check.name for check in verdict.CHECKS])
def test_a_twin_of_stable_passes(check: str) -> None:
    assert judged(check, GOOD).passed is True
    assert judged(check, Window(), Window()).passed is True


@pytest.mark.parametrize(
    ("check", "candidate", "passed"),
    [
        pytest.param("errors", replace(GOOD, errors=2), True, id="errors too few to count"),
        pytest.param("errors", replace(GOOD, errors=3), False, id="errors where stable has none"),
        pytest.param(
            "latency", replace(GOOD, latency_counts=(0, 590, 10, 0, 0)), True, id="within 2 ms"
        ),
        pytest.param(
            "latency", replace(GOOD, latency_counts=(0, 0, 600, 0, 0)), False, id="beyond 2 ms"
        ),
        pytest.param(
            "tail", replace(GOOD, latency_counts=(300, 285, 15, 0, 0)), True, id="within 20 ms"
        ),
        pytest.param(
            "tail", replace(GOOD, latency_counts=(290, 210, 0, 100, 0)), False, id="beyond 20 ms"
        ),
        pytest.param("overflow", replace(GOOD, overflow_pairs=400), False, id="some overflow"),
    ],
)
def test_what_is_worse_than_stable_does_not(check: str, candidate: Window, passed: bool) -> None:
    assert judged(check, candidate).passed is passed


@given(st.floats(0.5, 1e9))
def test_of_no_errors_the_share_is_none_whatever_is_rounded(attempts: float) -> None:
    assert lowest_percent(0, attempts) == 0.0


def test_no_requests_are_waited_for_where_none_are_wanted() -> None:
    assert judged("requests", Window()).passed is True


def test_mean_norms_differ_by_chance_so_a_limit_of_0_is_refused() -> None:
    with pytest.raises(InvalidDocument, match="maxNormIncreasePercent is 0"):
        strategy(maxNormIncreasePercent=0)


@pytest.mark.parametrize(
    ("mean", "sd", "passed"),
    [
        pytest.param(0.0, 0.0, True, id="the same bits"),
        pytest.param(0.0, 0.1, None, id="no difference on the whole"),
        pytest.param(-0.1, 0.1, True, id="surely better"),
        pytest.param(0.1, 0.1, False, id="surely worse"),
        pytest.param(1e-9, 0.0, False, id="worse by nothing much, in every sequence"),
    ],
)
def test_no_increase_of_the_loss(mean: float, sd: float, passed: bool | None) -> None:
    whole = Compared(Paired(256, mean, sd), 2.0, 2.0 + mean)
    seen = GoldenResult(whole, {"code": whole}, 0.0)
    assert golden(seen, 0.0).passed is passed
    assert (golden(seen, 100.0, {"code": 0.0}).passed is False) is (passed is False)


@pytest.mark.parametrize(
    ("loss", "passed"),
    [
        pytest.param(2.0, None, id="as good: it cannot be told"),
        pytest.param(1.5, True, id="surely better"),
        pytest.param(2.5, False, id="surely worse"),
    ],
)
def test_no_increase_of_what_sessions_report(loss: float, passed: bool | None) -> None:
    def arm(mean: float) -> Arm:
        n, w = 2000, 100.0
        ww = n * w * w
        return Arm(n, n * w, n * w * mean, ww, ww * (mean**2 + 0.01), ww * mean)

    assert outcomes([Stratum(arm(loss), arm(2.0))], 0.0).passed is passed


@pytest.mark.parametrize("entropy", [0.0, -1e-7, 1.0])
def test_a_gate_without_limits_of_entropy_and_overlap_may_choose_as_it_likes(
    entropy: float,
) -> None:
    limits = RoutingLimits(min_entropy_percent=0, min_overlap_percent=0, min_rows=1)
    variant = GateVariant("v1", "0" * 64, "file:///gate", ("e0", "e1"), Policy(1))
    layer = LayerShadow(0, 100, 0.0, 500.0, 100 * entropy, 100.0, (50, 50), (50, 50))
    seen = Routing(variant, variant, (layer,), (0,), limits)
    found = {f.name: f.verdict.passed for f in routing_findings(seen, waited_for=True)}
    names = ("shadow", "load", "entropy", "overlap", "divergence")
    assert found == dict.fromkeys(names, True)
    sharp = replace(seen, limits=replace(limits, min_entropy_percent=10))
    (finding,) = (f for f in routing_findings(sharp, waited_for=True) if f.name == "entropy")
    assert finding.verdict.passed is (entropy == 1.0)
