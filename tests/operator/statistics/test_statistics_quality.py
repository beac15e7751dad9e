"""Verdicts by quality: which of the three, and with which sentence."""

from __future__ import annotations

import math

import pytest

from moe_operator.paired import Paired
from moe_operator.quality import Compared, GoldenResult, golden, outcomes
from moe_operator.sequential import Arm, Stratum


def compared(mean: float, sd: float, n: int = 512, stable: float = 2.0) -> Compared:
    return Compared(Paired(n, mean, sd), stable, stable + mean)


def result(whole: Compared, **slices: Compared) -> GoldenResult:
    return GoldenResult(whole, slices, 1.34)


def arm(sessions: int, loss: float, spread: float) -> Arm:
    """So many sessions of 100 tokens, every other one `spread` above and below `loss`."""
    n, x = sessions, 100.0
    xx = n * (loss**2 + spread**2) * x * x
    return Arm(n, n * x, n * loss * x, n * x * x, xx, n * loss * x * x)


@pytest.mark.parametrize(
    ("mean", "sd", "passed"),
    [
        pytest.param(0.0, 0.0, True, id="the same bits"),
        pytest.param(-0.131, 0.2, True, id="better"),
        pytest.param(0.019, 0.0005, True, id="worse, but surely within the margin"),
        pytest.param(0.019, 0.02, None, id="perhaps within the margin"),
        pytest.param(0.021, 0.02, None, id="perhaps beyond the margin"),
        pytest.param(0.05, 0.1, False, id="surely beyond the margin"),
    ],
)
def test_the_golden_set_passes_objects_or_cannot_tell(
    mean: float, sd: float, passed: bool | None
) -> None:
    assert golden(result(compared(mean, sd)), 1.0).passed is passed


def test_a_golden_verdict_carries_its_numbers() -> None:
    assert golden(result(compared(-0.131, 0.2, stable=2.271)), 1.0).reason == (
        "golden set: −0.131 bits per token (−0.154 … −0.114) of 512 sequences, "
        "1.3% of top-k choices flipped; maxLossIncrease is 1% (+0.023)"
    )


def test_a_slice_with_a_margin_objects_though_the_whole_is_better() -> None:
    seen = result(compared(-0.1, 0.2), legal=compared(0.2, 0.1, 64), code=compared(9.0, 0.1, 64))
    verdict = golden(seen, 1.0, {"legal": 5.0})
    assert verdict.passed is False
    assert verdict.reason.startswith("golden set, slice legal: +0.200 bits per token (+0.167 …")
    assert verdict.reason.endswith("maxLossIncrease is 5% (+0.100)")


def test_slices_without_a_margin_do_not_object() -> None:
    seen = result(compared(-0.1, 0.2), code=compared(9.0, 0.1, 64))
    assert golden(seen, 1.0).passed is True


def test_many_slices_share_the_level_of_one() -> None:
    alone, others = compared(0.05, 0.085, 64), compared(0.0, 0.0)
    seen = result(others, a=alone, **{f"s{i}": others for i in range(15)})
    assert golden(seen, 1.0, {"a": 1.0}).passed is False
    assert golden(seen, 1.0, dict.fromkeys(seen.slices, 1.0)).passed is True


def test_a_slice_that_the_set_does_not_have_is_named() -> None:
    seen = result(compared(0.0, 0.0), code=compared(0.0, 0.0))
    verdict = golden(seen, 1.0, {"legal": 1.0})
    assert verdict.passed is None
    assert verdict.reason == "golden set: no slice legal; it has code"


@pytest.mark.parametrize(
    ("loss", "sessions", "passed"),
    [
        pytest.param(2.0, 2_000, True, id="the same"),
        pytest.param(2.0, 100, None, id="the same, of few"),
        pytest.param(2.3, 2_000, False, id="worse"),
        pytest.param(2.1, 2_000, None, id="at the margin"),
    ],
)
def test_outcomes_pass_object_or_cannot_tell(
    loss: float, sessions: int, passed: bool | None
) -> None:
    strata = [Stratum(arm(sessions, loss, 0.4), arm(sessions, 2.0, 0.4))]
    assert outcomes(strata, 5.0).passed is passed


def test_an_outcome_verdict_carries_its_numbers() -> None:
    strata = [Stratum(arm(2_000, 2.3, 0.4), arm(6_000, 2.0, 0.4))]
    verdict = outcomes(strata, 5.0)
    assert verdict.reason == (
        "outcomes: +0.300 bits per token (+0.261 … +0.334) in 2000 sessions against 6000 of "
        "stable; maxLossIncrease is 5% (+0.100)"
    )


def test_too_few_sessions_say_how_many_are_wanted() -> None:
    verdict = outcomes([Stratum(arm(12, 9.0, 0.1), arm(300, 2.0, 0.1))], 1.0)
    assert verdict.passed is None
    assert verdict.reason == (
        "outcomes: 12 sessions against 300 of stable; 30 of each under one weight wanted"
    )
    assert outcomes([], 1.0).passed is None


def test_scores_are_given_negated() -> None:
    lost = [Stratum(arm(2_000, -0.5, 0.3), arm(2_000, -0.9, 0.3))]
    verdict = outcomes(lost, 5.0, unit="of score lost")
    assert verdict.passed is False
    assert "+0.400 of score lost" in verdict.reason


def test_a_margin_of_zero_still_objects_and_never_passes_the_same() -> None:
    assert outcomes([Stratum(arm(9_000, 2.3, 0.4), arm(9_000, 2.0, 0.4))], 0.0).passed is False
    assert outcomes([Stratum(arm(9_000, 2.0, 0.4), arm(9_000, 2.0, 0.4))], 0.0).passed is None


def test_losses_that_are_no_numbers_never_pass() -> None:
    broken = Arm(99, 9900.0, math.nan, 990_000.0, math.nan, math.nan)
    assert outcomes([Stratum(broken, arm(99, 2.0, 0.4))], 1.0).passed is None
