"""How far one spread of rows over experts is from another, and how far chance alone may bring it.

The distance is the population stability index, PSI = Σ (p − q) ln(p / q): the symmetric divergence
of Jeffreys (1946), in the use of Siddiqi (Credit Risk Scorecards, 2006), who calls 0.1 to 0.25 a
small shift and more a large one. Of n and m independent draws over B experts its mean by chance is
(B − 1)(1/n + 1/m) (Yurdakul and Naranjo 2020). Rows of one session are not independent; so how many
draws they are worth is measured, by comparing groups of sessions. Pure; whole numbers in, floats
out.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

GROUPS: Final = 16
# Fewer groups than this, in Kish's count, do not say how far sessions differ.
FEWEST_GROUPS: Final = 8.0


def group_of(session: str) -> int:
    """Return the group of a session, 0 to GROUPS − 1: the same at every router."""
    return zlib.crc32(session.encode()) % GROUPS


@dataclass(frozen=True, slots=True)
class Spread:
    """`shares` (E,) of the pairs that experts got, worth so many independent draws."""

    shares: tuple[float, ...]
    effective: float


@dataclass(frozen=True, slots=True)
class Distance:
    """`psi` as it was seen, its mean by `chance`, and what it surely is at least."""

    psi: float
    chance: float
    least: float

    @property
    def likely(self) -> float:
        """The estimate: without what chance adds."""
        return max(self.psi - self.chance, 0.0)


def groups_seen(pairs: Sequence[int], experts: int) -> float:
    """Return how many groups of equal size the pairs (GROUPS · E,) stand for (Kish 1965)."""
    sizes = [sum(pairs[first : first + experts]) for first in range(0, len(pairs), experts)]
    squares = sum(size * size for size in sizes)
    return sum(sizes) ** 2 / squares if squares else 0.0


def spread(pairs: Sequence[int], experts: int) -> Spread | None:
    """Return what pairs by group of sessions and expert, (GROUPS · E,), say; None of too little.

    Groups are random, so their differences give the variance of each share, whatever goes on
    within sessions (the random group method; Wolter 2007, ch. 2): Var(p) = G/(G − 1) Σ z² / n²,
    z = x − p · n_g. It is worth as many draws as would give PSI the same mean by chance, which is
    Σ Var(p) / p: the first order correction of Rao and Scott (1981).
    """
    if groups_seen(pairs, experts) < FEWEST_GROUPS:
        return None
    rows = [pairs[first : first + experts] for first in range(0, len(pairs), experts)]
    sizes = [sum(row) for row in rows]
    n, seen = sum(sizes), sum(1 for size in sizes if size)
    shares = tuple(sum(column) / n for column in zip(*rows, strict=True))
    used = sum(1 for share in shares if share)
    if used < 2:
        return Spread(shares, n / max(sizes))
    scale, chance = seen / ((seen - 1) * n * n), 0.0
    for share, column in zip(shares, zip(*rows, strict=True), strict=True):
        if share:
            squares = sum((x - share * size) ** 2 for x, size in zip(column, sizes, strict=True))
            chance += scale * squares / share
    return Spread(shares, min((used - 1) / chance, n) if chance else float(n))


def distance(base: Spread, live: Spread, z: float) -> Distance:
    """Return how far `live` is from `base`; `z` is the normal quantile of the lower bound.

    The variance is that of the delta method at what was seen, and what chance adds to it where
    nothing has shifted: that of χ² of B − 1 degrees, in units of 1/n + 1/m. So that an expert that
    got nothing does not make it endless, each has half a draw more.
    """
    used = [n for n, (q, p) in enumerate(zip(base.shares, live.shares, strict=True)) if q or p]
    q, p = _smooth(base, used), _smooth(live, used)
    psi = sum((b - a) * math.log(b / a) for a, b in zip(q, p, strict=True))
    unit, degrees = 1 / base.effective + 1 / live.effective, max(len(used) - 1, 0)
    chance = degrees * unit
    slopes = [
        (math.log(b / a) + 1 - a / b, math.log(a / b) + 1 - b / a)
        for a, b in zip(q, p, strict=True)
    ]
    of_live = _variance(p, [slope for slope, _ in slopes]) / live.effective
    of_base = _variance(q, [slope for _, slope in slopes]) / base.effective
    error = math.sqrt(of_live + of_base + 2 * degrees * unit * unit)
    return Distance(psi, chance, psi - chance - z * error)


def entropy_bits(shares: Sequence[float]) -> float:
    """Return Shannon's entropy of shares in bits."""
    return sum(-share * math.log2(share) for share in shares if share)


def _smooth(of: Spread, used: Sequence[int]) -> list[float]:
    whole = of.effective + len(used) / 2
    return [(of.shares[n] * of.effective + 0.5) / whole for n in used]


def _variance(shares: Sequence[float], values: Sequence[float]) -> float:
    mean = sum(s * v for s, v in zip(shares, values, strict=True))
    return max(sum(s * v * v for s, v in zip(shares, values, strict=True)) - mean * mean, 0.0)
