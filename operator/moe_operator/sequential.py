"""Bounds of the difference between two arms of live sessions that hold however often one looks.

Sessions are what is independent, tokens are not: each session is one cluster, known only by sums
of w (its tokens) and x (its summed loss). Sessions that began under one weight are one stratum, as
the traffic of another hour may be harder for both arms. Higher x is worse; a caller with scores
negates them. Decides nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Self

MIN_SESSIONS: Final = 30
"""Of each arm in a stratum, before it says anything: variances of fewer clusters are guesses."""


@dataclass(frozen=True, slots=True)
class Arm:
    """Sums over sessions of w, x and their products; of zero sessions unless told otherwise."""

    sessions: int = 0
    w: float = 0.0
    x: float = 0.0
    ww: float = 0.0
    xx: float = 0.0
    wx: float = 0.0

    def __add__(self, other: Self) -> Self:
        return type(self)(
            sessions=self.sessions + other.sessions,
            w=self.w + other.w,
            x=self.x + other.x,
            ww=self.ww + other.ww,
            xx=self.xx + other.xx,
            wx=self.wx + other.wx,
        )

    @property
    def ratio(self) -> float:
        """Return Σx/Σw, the mean loss of a token; 0 of nothing."""
        return self.x / self.w if self.w > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Stratum:
    """The sessions that began under one weight, by the version that they were drawn to."""

    candidate: Arm
    stable: Arm


@dataclass(frozen=True, slots=True)
class Difference:
    """Candidate − stable, of `sessions` of both arms, and the variance of that estimate."""

    mean: float
    variance: float
    sessions: int


def difference(strata: Iterable[Stratum], least: int = MIN_SESSIONS) -> Difference | None:
    """Return the difference of the arms' ratio means within strata, pooled over them.

    A stratum of n and m sessions has the weight nm/(n + m) (Mantel and Haenszel 1959; Cochran
    1954). That is its inverse variance, up to a factor, where all sessions vary alike, but owes
    nothing to variances that few sessions estimated: those fall together with the mean of a skewed
    loss, and would favour the arm that was lucky. None where no stratum has `least` of each arm.
    """
    told = [s for s in strata if min(s.candidate.sessions, s.stable.sessions) >= max(least, 2)]
    told = [s for s in told if s.candidate.w > 0 and s.stable.w > 0]
    if not told:
        return None
    sizes = [(s.candidate.sessions, s.stable.sessions) for s in told]
    weights = [n * m / (n + m) for n, m in sizes]
    total = sum(weights)
    means = (s.candidate.ratio - s.stable.ratio for s in told)
    variances = (ratio_variance(s.candidate) + ratio_variance(s.stable) for s in told)
    return Difference(
        mean=sum(a * mean for a, mean in zip(weights, means, strict=True)) / total,
        variance=sum(a * a * v for a, v in zip(weights, variances, strict=True)) / total**2,
        sessions=sum(n + m for n, m in sizes),
    )


def ratio_variance(arm: Arm) -> float:
    """Return the variance of Σx/Σw over sessions, at least two of them.

    The linearised ratio estimator, n/(n − 1) · Σ(x − Rw)² / (Σw)² (Cochran 1977, "Sampling
    Techniques", §6.4): robust to whatever goes on within a session.
    """
    ratio = arm.ratio
    squares = arm.xx - 2 * ratio * arm.wx + ratio**2 * arm.ww
    return max(squares, 0.0) * arm.sessions / (arm.sessions - 1) / arm.w**2


def bounds(found: Difference, alpha: float, scale: float) -> tuple[float, float]:
    """Return a lower and an upper bound of the true difference, each ever wrong with `alpha`.

    Each holds at all looks at once: the chance that it fails at any of them is `alpha` at most, as
    sessions grow many (asymptotic confidence sequences, Waudby-Smith et al. 2024). The boundary is
    Robbins' normal mixture (1970; Johari et al. 2022), one-sided in the closed form of Howard et
    al. (2021, "Time-uniform, nonparametric, nonasymptotic confidence sequences", §3.2): with
    variance V and a mixture over true differences of standard deviation s, the bound is away by

        √(2 · V · (1 + V/s²) · log(1 + √(1 + s²/V) / 2α)).

    `scale` is s, fixed before the first look. Bounds of about that width are the tightest, so the
    margin that they are held against is the right one. Raises ValueError unless 0 < alpha < 0.5
    and `scale` > 0.
    """
    if not (0 < alpha < 0.5 and scale > 0):
        raise ValueError(f"alpha is {alpha} and scale {scale}; 0 < alpha < 0.5, scale > 0 wanted")
    variance = found.variance
    if variance <= 0:
        return found.mean, found.mean
    mixed = math.log1p(math.sqrt(1 + scale**2 / variance) / (2 * alpha))
    reach = math.sqrt(2 * variance * (1 + variance / scale**2) * mixed)
    return found.mean - reach, found.mean + reach


def absolute(percent: float, strata: Iterable[Stratum]) -> float:
    """Return `percent` of stable's loss (its size, should the loss be a negated score)."""
    return percent / 100 * abs(sum((s.stable for s in strata), Arm()).ratio)
