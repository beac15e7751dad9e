"""Judges a candidate by what routers counted of it and of stable in the same time.

Cheapest evidence first, and the first objection wins. Too little evidence is neither pass nor
fail. Decides nothing about weights: that is `rollout`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from moe_operator.strategy import Limits
from moe_operator.world import Window

# Percentages mean nothing of a few: so many errors at least before their share counts.
_MIN_ERRORS: Final = 3
# So many attempts of both versions before medians are compared.
_MIN_ATTEMPTS: Final = 20
# What a busy node adds by itself is no sign of a slow version.
_LATENCY_FLOOR_US: Final = 2_000


@dataclass(frozen=True, slots=True)
class Verdict:
    """`passed` is None where the evidence is too little."""

    passed: bool | None
    reason: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of a candidate in its step; `lost` means that no router has a link to it."""

    candidate: Window
    stable: Window
    lost: bool
    limits: Limits
    min_requests: int


def gone_under_load(seen: Evidence) -> Verdict | None:
    """A version that served in this step and is gone altogether; without load it is waited for."""
    attempts, errors = seen.candidate.requests, seen.candidate.errors
    if not seen.lost or not attempts:
        return None
    return Verdict(
        False,
        f"all its pods are gone under load, after {attempts} requests, {errors} of them failed",
    )


def answers_not_finite(seen: Evidence) -> Verdict | None:
    rows = seen.candidate.nonfinite_rows
    if rows or not math.isfinite(seen.candidate.norm_sum):
        return Verdict(False, f"{rows} of {seen.candidate.rows} rows are not finite numbers")
    return None


def too_many_errors(seen: Evidence) -> Verdict | None:
    errors, limit = seen.candidate.errors, seen.limits.max_error_percent
    candidate, stable = error_percent(seen.candidate), error_percent(seen.stable)
    if errors < _MIN_ERRORS or candidate - stable <= limit:
        return None
    return Verdict(
        False,
        f"{errors} of {seen.candidate.requests} attempts failed, {candidate:.1f}% against "
        f"{stable:.1f}% of stable; maxErrorPercent is {limit}",
    )


def too_few_requests(seen: Evidence) -> Verdict | None:
    answered = answered_requests(seen.candidate)
    if answered >= seen.min_requests:
        return None
    rows = seen.candidate.rows
    return Verdict(None, f"{answered} of {seen.min_requests} requests, {rows} rows seen")


def norms_grew(seen: Evidence) -> Verdict | None:
    candidate, stable = mean_norm(seen.candidate), mean_norm(seen.stable)
    limit = seen.limits.max_norm_increase_percent
    if not stable or candidate <= stable * (1 + limit / 100):
        return None
    return Verdict(
        False,
        f"mean norm of the answers is {candidate:.3g} against {stable:.3g} of stable; "
        f"maxNormIncreasePercent is {limit}",
    )


def latency_grew(seen: Evidence) -> Verdict | None:
    if min(sum(seen.candidate.latency_counts), sum(seen.stable.latency_counts)) < _MIN_ATTEMPTS:
        return None
    candidate, stable = median_us(seen.candidate), median_us(seen.stable)
    limit = seen.limits.max_latency_increase_percent
    if candidate <= max(stable * (1 + limit / 100), stable + _LATENCY_FLOOR_US):
        return None
    return Verdict(
        False,
        f"median latency is {candidate / 1000:.1f} ms against {stable / 1000:.1f} ms of stable; "
        f"maxLatencyIncreasePercent is {limit}",
    )


# In this order: what fails at once, then what must be waited for, then what needs enough rows.
CHECKS: Final[tuple[Callable[[Evidence], Verdict | None], ...]] = (
    gone_under_load,
    answers_not_finite,
    too_many_errors,
    too_few_requests,
    norms_grew,
    latency_grew,
)


def judge(seen: Evidence) -> Verdict:
    """Return the first objection, or that all checks passed, with the numbers."""
    objections = (check(seen) for check in CHECKS)
    passed = f"{answered_requests(seen.candidate)} requests, {seen.candidate.rows} rows seen"
    return next((o for o in objections if o is not None), Verdict(True, passed))


def answered_requests(window: Window) -> int:
    """Return the attempts that gave a usable answer."""
    return max(window.requests - window.errors, 0)


def error_percent(window: Window) -> float:
    """Return the attempts that failed of all, in percent."""
    return min(100 * window.errors / window.requests, 100.0) if window.requests else 0.0


def mean_norm(window: Window) -> float:
    return window.norm_sum / window.rows if window.rows else 0.0


def median_us(window: Window) -> float:
    """Return the median of a histogram in microseconds, linear within its bucket.

    `latency_bounds_us` are upper bounds; what is above the last one counts as that one.
    """
    half = sum(window.latency_counts) / 2
    bounds = (0, *window.latency_bounds_us)
    upto = [0, *accumulate(window.latency_counts)]
    for low, high, before, after in zip(bounds, bounds[1:], upto, upto[1:], strict=False):
        if after >= half and after > before:
            return low + (high - low) * (half - before) / (after - before)
    return float(bounds[-1])
