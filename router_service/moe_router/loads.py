"""How the load spreads over experts, period by period: imbalance, entropy, what stands out.

Sums since the start say nothing of now; so shares are those of the last whole period in which
rows came. Looked at whenever somebody asks, never on the way of a row. Pure: time is an input.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

PERIOD_S = 60.0


@dataclass(frozen=True, slots=True)
class Place:
    """One layer of one version of a gate."""

    gate: str
    sha256: str
    layer: int


@dataclass(frozen=True, slots=True)
class Spread:
    """The pairs (E,) of a period, at least one."""

    pairs: Array

    @property
    def imbalance(self) -> float:
        """Pairs of the most loaded expert over those of the mean one, 1 to E."""
        return float(self.pairs.max() / self.pairs.mean())

    @property
    def entropy_bits(self) -> float:
        """Entropy of the shares (Shannon 1948), 0 to log2 E."""
        shares = self.shares[self.pairs > 0]
        return float(-(shares * np.log2(shares)).sum()) + 0.0

    @property
    def shares(self) -> Array:
        return np.asarray(self.pairs / self.pairs.sum())


class Loads:
    """The last period of each place, and which cells (place, expert's number) stand out in it."""

    def __init__(self, now_s: float) -> None:
        self._began_s, self._whole = now_s, False
        self._base: dict[Place, Array] = {}
        self.spreads: Mapping[Place, Spread] = {}
        self.moving: Sequence[tuple[Place, int]] = ()

    def look(self, totals: Mapping[Place, Array], now_s: float, cells: int) -> None:
        """Take in pairs (E,) since the start; a period that is long enough ends here.

        Before the first one has ended, what there is counts as one. `cells` are to stand out.
        """
        over = now_s - self._began_s >= PERIOD_S
        if not over and self._whole:
            return
        spreads = {
            place: Spread(pairs)
            for place, total in totals.items()
            if (pairs := self._since(place, total)).any()
        }
        self.moving = _moving(spreads, self.spreads if self._whole else {}, cells)
        self.spreads = spreads
        if over:
            self._began_s, self._whole = now_s, True
            self._base = {place: total.copy() for place, total in totals.items()}

    def _since(self, place: Place, total: Array) -> Array:
        base = self._base.get(place)
        return total.copy() if base is None or len(base) != len(total) else total - base


def _moving(
    now: Mapping[Place, Spread], before: Mapping[Place, Spread], cells: int
) -> list[tuple[Place, int]]:
    """Return the cells that are farthest from an even share, or moved most: both count alike."""

    def scores() -> Iterable[tuple[float, Place, int]]:
        for place, spread in now.items():
            shares, old = spread.shares, before.get(place)
            score = np.abs(shares - 1 / len(shares))
            if old is not None and len(old.pairs) == len(shares):
                score = score + np.abs(shares - old.shares)
            most = np.argsort(-score, kind="stable")[:cells]
            yield from ((float(score[number]), place, int(number)) for number in most)

    best = heapq.nlargest(cells, scores(), key=lambda one: one[0])
    return [(place, number) for _, place, number in best]
