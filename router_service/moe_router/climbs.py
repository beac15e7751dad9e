"""The pairs of a request that no worker answers: the rungs that stand for them.

Pure over arrays. What such a pair's weight becomes, `settle` decides.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from moe_core.table import Rung
from moe_router.ladder import Lost
from moe_router.plan import Pairs
from moe_router.settle import Climb

Array = npt.NDArray[Any]


class Climbs:
    """What was left so far, and what of it may be tried again."""

    def __init__(self) -> None:
        self._others: list[Climb] = []
        self._to_siblings: list[tuple[Lost, Pairs]] = []

    @property
    def to_siblings(self) -> bool:
        """Whether pairs were left to the other experts of their tokens."""
        return bool(self._to_siblings)

    def leave(self, rung: Rung, lost: Lost, pairs: Pairs) -> None:
        """Take it that a rung without workers stands for these pairs."""
        if rung is Rung.RENORMALISE:
            self._to_siblings.append((lost, pairs))
        else:
            self._others.append(Climb(rung, lost.expert_id, pairs))

    def all(self) -> list[Climb]:
        """Return every one."""
        left = [Climb(Rung.RENORMALISE, lost.expert_id, p) for lost, p in self._to_siblings]
        return [*self._others, *(climb for climb in left if len(climb.pairs))]

    def take_stranded(self, weights: Array) -> list[tuple[Lost, Pairs]]:
        """Take out the pairs left to siblings where none answers; `weights` are (T, k)."""
        left = np.zeros(weights.size, bool)
        for climb in self.all():
            if climb.rung in (Rung.RENORMALISE, Rung.RESIDUAL):
                left[climb.pairs] = True
        alone = np.repeat(stranded(weights, left.reshape(weights.shape)), weights.shape[1])
        anew = [(lost, p[alone[p]]) for lost, p in self._to_siblings if alone[p].any()]
        self._to_siblings = [(lost, p[~alone[p]]) for lost, p in self._to_siblings]
        return anew


def stranded(weights: Array, left: Array) -> Array:
    """Return a mask (T,) of tokens none of whose experts answered with a weight above zero.

    `weights` and `left` (nobody answered) are (T, k).
    """
    kept = np.where(left, 0, weights.astype(np.float32)).sum(axis=1)
    return np.asarray(kept <= 0)
