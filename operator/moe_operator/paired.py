"""Bounds of a mean difference between two runs over the same sequences: Student's paired t.

Both versions read each sequence, so what makes one sequence harder than another cancels; what is
left is one difference per sequence, and sequences, not tokens, are what is independent. For one
look at the data; looking again and again is `sequential`. Decides nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

_NORMAL: Final = NormalDist()
# From so many degrees of freedom on the expansion below is exact to ten digits.
_EXPANDED_FROM: Final = 200
_NEWTON_STEPS: Final = 200


@dataclass(frozen=True, slots=True)
class Paired:
    """Differences of `n` pairs, candidate − stable: their mean and sample standard deviation."""

    n: int
    mean: float
    sd: float

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError(f"n is {self.n}; there must be at least one pair")
        if not (math.isfinite(self.mean) and math.isfinite(self.sd) and self.sd >= 0):
            raise ValueError(
                f"mean is {self.mean} and sd is {self.sd}; both must be finite, sd not negative"
            )


def bounds(sample: Paired, alpha: float) -> tuple[float, float]:
    """Return a lower and an upper bound of the true mean, each wrong in `alpha` of cases at most.

    mean ∓ t(1 − alpha, n − 1) · sd / √n (Student 1908, "The probable error of a mean"). One pair
    alone bounds nothing. Raises ValueError unless 0 < alpha < 0.5.
    """
    if not 0 < alpha < 0.5:
        raise ValueError(f"alpha is {alpha}; it must be above 0 and below 0.5")
    if sample.n < 2:
        return -math.inf, math.inf
    reach = t_quantile(1 - alpha, sample.n - 1) * sample.sd / math.sqrt(sample.n)
    return sample.mean - reach, sample.mean + reach


def t_quantile(p: float, freedom: int) -> float:
    """Return the `p` quantile, 0.5 <= p < 1, of Student's t with `freedom` >= 1 degrees.

    Newton's method on the exact distribution function, which is concave right of its median: from
    the normal quantile, which is smaller, it only rises to the root. Beyond 200 degrees of freedom
    the Cornish–Fisher expansion in 1/freedom (Abramowitz and Stegun 1964, 26.7.5).
    """
    if not (0.5 <= p < 1 and freedom >= 1):
        raise ValueError(f"p is {p} and freedom {freedom}; 0.5 <= p < 1 and freedom >= 1 wanted")
    t = _NORMAL.inv_cdf(p)
    if freedom >= _EXPANDED_FROM:
        return _expanded(t, freedom)
    for _ in range(_NEWTON_STEPS):
        step = (p - _distribution(t, freedom)) / _density(t, freedom)
        t += step
        if abs(step) <= 1e-12 * (1 + t):
            break
    return t


def _expanded(x: float, freedom: int) -> float:
    """Return the quantile of t to that of the normal distribution `x`."""
    terms = (
        x,
        (x**3 + x) / 4,
        (5 * x**5 + 16 * x**3 + 3 * x) / 96,
        (3 * x**7 + 19 * x**5 + 17 * x**3 - 15 * x) / 384,
        (79 * x**9 + 776 * x**7 + 1482 * x**5 - 1920 * x**3 - 945 * x) / 92160,
    )
    return math.fsum(term / freedom**power for power, term in enumerate(terms))


def _distribution(t: float, freedom: int) -> float:
    """Return P(T <= t), a finite series in cos² of atan(t/√freedom) (26.7.3 and 26.7.4 there)."""
    angle = math.atan2(t, math.sqrt(freedom))
    cos2 = math.cos(angle) ** 2
    odd = freedom % 2
    term = total = math.cos(angle) if odd else 1.0
    for k in range(2 + odd, freedom - 1, 2):
        term *= cos2 * (k - 1) / k
        total += term
    if not odd:
        return 0.5 + math.sin(angle) * total / 2
    return 0.5 + (angle + math.sin(angle) * total * (freedom > 1)) / math.pi


def _density(t: float, freedom: int) -> float:
    scale = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)
    tail = (freedom + 1) / 2 * math.log1p(t * t / freedom)
    return math.exp(scale - tail) / math.sqrt(freedom * math.pi)
