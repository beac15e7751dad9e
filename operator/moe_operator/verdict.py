"""Judges a candidate by what routers counted of it and of stable in the same time.

Cheapest evidence first, and the first objection wins. Too little evidence is neither pass nor
fail. Copies of stable's rows (shadow) count like rows of the candidate's own. Decides nothing
about weights: that is `canary`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from moe_operator.shares import (
    answered_requests,
    attempts_above,
    attempts_seen,
    error_percent,
    errors_seen,
    lowest_beside,
    lowest_percent,
    mean_norm,
    overflow_percent,
    quantile_us,
    rows_seen,
)
from moe_operator.strategy import Limits
from moe_operator.window import Window

# Percentages mean nothing of a few: so many errors at least before their share counts.
_MIN_ERRORS: Final = 3
# So many sessions of both versions before overflow is compared.
MIN_SESSIONS: Final = 30


class Tier(StrEnum):
    """What evidence is of, cheapest first; Prometheus is whatever its queries ask."""

    SANITY = "Sanity"
    SERVICE = "Service"
    QUALITY = "Quality"
    PROMETHEUS = "Prometheus"


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

    @property
    def enough(self) -> bool:
        """Whether what needs many rows may be judged."""
        return answered_requests(self.candidate) >= self.min_requests


@dataclass(frozen=True, slots=True)
class Check:
    """One question about a candidate; the verdict carries its numbers, whatever it is."""

    tier: Tier
    name: str
    judge: Callable[[Evidence], Verdict]


@dataclass(frozen=True, slots=True)
class _Quantile:
    """A quantile that is compared, from so many attempts of both versions on.

    `floor_us` is what a busy node adds by itself, which is no sign of a slow version.
    """

    name: str
    share: float
    least: int
    floor_us: int


_MEDIAN: Final = _Quantile("median latency", 0.5, 20, 2_000)
_TAIL: Final = _Quantile("p99 latency", 0.99, 500, 20_000)  # five attempts beyond it at least


def gone_under_load(seen: Evidence) -> Verdict:
    """A version that served in this step and is gone altogether; without load it is waited for."""
    attempts, errors = seen.candidate.requests, seen.candidate.errors
    if not seen.lost or not attempts:
        return Verdict(True, "routers reach it" if not seen.lost else "gone, without load")
    return Verdict(
        False,
        f"all its pods are gone under load, after {attempts} requests, {errors} of them failed",
    )


def answers_not_finite(seen: Evidence) -> Verdict:
    window = seen.candidate
    bad, rows = window.nonfinite_rows + window.shadow_nonfinite_rows, rows_seen(window)
    finite = math.isfinite(window.norm_sum) and math.isfinite(window.shadow_norm_sum)
    return Verdict(not bad and finite, f"{bad} of {rows} rows are not finite numbers")


def too_many_errors(seen: Evidence) -> Verdict:
    errors, limit = errors_seen(seen.candidate), seen.limits.max_error_percent
    candidate, stable = error_percent(seen.candidate), error_percent(seen.stable)
    surely = lowest_percent(errors, attempts_seen(seen.candidate))
    return Verdict(
        errors < _MIN_ERRORS or surely - stable <= limit,
        f"{errors} of {attempts_seen(seen.candidate)} attempts failed, {candidate:.1f}% against "
        f"{stable:.1f}% of stable; maxErrorPercent is {limit}",
    )


def too_few_requests(seen: Evidence) -> Verdict:
    answered, rows = answered_requests(seen.candidate), rows_seen(seen.candidate)
    if seen.enough:
        return Verdict(True, f"{answered} requests, {rows} rows seen")
    return Verdict(None, f"{answered} of {seen.min_requests} requests, {rows} rows seen")


def norms_grew(seen: Evidence) -> Verdict:
    candidate, stable = mean_norm(seen.candidate), mean_norm(seen.stable)
    limit = seen.limits.max_norm_increase_percent
    grew = seen.enough and stable > 0 and candidate > stable * (1 + limit / 100)
    return Verdict(
        not grew,
        f"mean norm of the answers is {candidate:.3g} against {stable:.3g} of stable; "
        f"maxNormIncreasePercent is {limit}",
    )


def latency_grew(seen: Evidence) -> Verdict:
    limit = seen.limits.max_latency_increase_percent
    return _slower(seen, _MEDIAN, limit, f"maxLatencyIncreasePercent is {limit}")


def tail_grew(seen: Evidence) -> Verdict:
    limit = seen.limits.max_tail_latency_increase_percent
    return _slower(seen, _TAIL, limit, f"maxTailLatencyIncreasePercent is {limit}")


def overflow_grew(seen: Evidence) -> Verdict:
    limit = seen.limits.max_overflow_increase_percent
    sessions = seen.candidate.overflow_sessions, seen.stable.overflow_sessions
    compared = seen.enough and min(sessions) >= MIN_SESSIONS
    candidate, stable = overflow_percent(seen.candidate), overflow_percent(seen.stable)
    surely = lowest_beside(candidate, *sessions) if compared else 0.0
    return Verdict(
        surely - stable <= limit,
        f"in {sessions[0]} sessions {candidate:.1f}% of {seen.candidate.session_pairs} pairs are "
        f"beyond capacity, against {stable:.1f}% in {sessions[1]} of stable; "
        f"maxOverflowIncreasePercent is {limit}",
    )


def _slower(seen: Evidence, of: _Quantile, percent: int, rule: str) -> Verdict:
    """Object where a quantile surely grew by more than `percent`, and by more than its floor.

    Surely: of the candidate's attempts, at the lower bound, more than stable's share took longer
    than the limit allows. All attempts of a second count as one, as if they shared one fate: a
    node may be busy just then. What only looks so is waited for.
    """
    n, m = sum(seen.candidate.latency_counts), sum(seen.stable.latency_counts)
    candidate, stable = (quantile_us(w, of.share) for w in (seen.candidate, seen.stable))
    told = f"{of.name} is {candidate / 1000:.1f} ms against {stable / 1000:.1f} ms of stable"
    bar_us = max(stable * (1 + percent / 100), stable + of.floor_us)
    if not seen.enough or min(n, m) < of.least or candidate <= bar_us:
        return Verdict(True, f"{told}; {rule}")
    seconds = int(seen.candidate.lasted_s)
    share = attempts_above(seen.candidate, bar_us) / n
    surely = lowest_beside(100 * share, min(n, seconds), min(m, seconds)) if seconds else 0.0
    if surely > 100 * (1 - of.share):
        return Verdict(False, f"{told}; {rule}")
    return Verdict(None, f"{told}; {rule}; looked at longer, after {n} attempts in {seconds} s")


# In this order: what fails at once, then what must be waited for, then what needs enough rows.
CHECKS: Final = (
    Check(Tier.SERVICE, "pods", gone_under_load),
    Check(Tier.SANITY, "finite", answers_not_finite),
    Check(Tier.SERVICE, "errors", too_many_errors),
    Check(Tier.SERVICE, "requests", too_few_requests),
    Check(Tier.SANITY, "norm", norms_grew),
    Check(Tier.SERVICE, "latency", latency_grew),
    Check(Tier.SERVICE, "tail", tail_grew),
    Check(Tier.SERVICE, "overflow", overflow_grew),
)
# What counts before a candidate has weight: of an evaluation, and of copies.
DARK_CHECKS: Final = CHECKS[1:3]


def judge(seen: Evidence) -> Verdict:
    """Return the first objection, else what is too little, else that all checks passed."""
    return first([check.judge(seen) for check in CHECKS]) or too_few_requests(seen)


def first(verdicts: Iterable[Verdict]) -> Verdict | None:
    """Return the first objection, else the first that waits; None where all passed."""
    told = tuple(verdicts)
    objection = next((v for v in told if v.passed is False), None)
    return objection or next((v for v in told if v.passed is None), None)
