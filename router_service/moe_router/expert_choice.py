"""Expert choice: experts take the rows that score them best, as many each. Pure over arrays.

What a row gets depends on the rows after it, so that it is for whole sequences only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moe_router.gate import Choice, Extra, Floats, softmax, taken
from moe_router.variants import EMPTY


@dataclass(frozen=True, slots=True)
class ExpertChoice:
    """Each expert takes the ceil(k·T/E) rows of a sequence with its largest softmax shares.

    Zhou et al. 2022, "Mixture-of-Experts with Expert Choice Routing", §3.2, where k is their
    capacity factor c: the experts of a row on average. Equal rows: the earlier one first. There
    are as many slots as the row with most experts has.
    """

    k: int

    def choose(self, logits: Floats, extra: Extra) -> Choice:
        shares = softmax(logits)  # (T, E)
        ends = np.cumsum(extra.batches)[:-1]
        mine = np.concatenate([self._take(part) for part in np.split(shares, ends)])  # (T, E)
        width = max(1, int(mine.sum(axis=1).max()))
        wanted = np.where(mine, shares, np.float32(-np.inf))
        experts = np.argsort(-wanted, axis=1, kind="stable")[:, :width]
        chosen = np.where(np.take_along_axis(mine, experts, axis=1), experts, EMPTY)
        found = chosen.astype(np.int32)
        return Choice(found, taken(shares, found))

    def _take(self, shares: Floats) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
        """Return which rows of one sequence each expert takes, (T, E)."""
        rows, experts = shares.shape
        takes = min(rows, -(-self.k * rows // experts))
        order = np.argsort(-shares, axis=0, kind="stable")[:takes]  # (C, E)
        mine = np.zeros(shares.shape, bool)
        np.put_along_axis(mine, order, True, axis=0)
        return mine
