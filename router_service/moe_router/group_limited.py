"""Top-k within the best groups of experts, so that a row goes to few of them. Pure over arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moe_core.policy import Groups, GroupScore, Scoring
from moe_router.gate import Choice, Extra, Floats, best, softmax, taken

_TINY = np.float32(1e-20)


@dataclass(frozen=True, slots=True)
class GroupLimitedTopK:
    """The k best experts of the best groups; weights are scores without the selection bias.

    With softmax and groups by their best expert it is DeepSeek-V2's (2024, §2.2.2,
    "device-limited routing"); with sigmoid, selection bias, groups by the sum of their best two and
    renormalised weights DeepSeek-V3's (2024, §2.1.2, "node-limited routing", and "auxiliary-loss-
    free load balancing", eq. 16). Slots are in falling order of what selected them.
    """

    k: int
    groups: Groups
    scoring: Scoring
    renormalises: bool
    scaling: float

    def choose(self, logits: Floats, extra: Extra) -> Choice:
        scores = softmax(logits) if self.scoring is Scoring.SOFTMAX else sigmoid(logits)  # (T, E)
        bias = extra.selection_bias
        preference = scores if bias is None else scores + bias
        experts = best(self._limit(preference), self.k, extra)
        weights = taken(scores, experts)
        if self.renormalises:
            weights = weights / (weights.sum(axis=1, keepdims=True) + _TINY)
        return Choice(experts, weights * np.float32(self.scaling))

    def _limit(self, preference: Floats) -> Floats:
        """Return the preferences with -inf in all but the best groups; equal groups as experts."""
        count, chosen = self.groups.count, self.groups.chosen
        if chosen == count:
            return preference
        grouped = preference.reshape(len(preference), count, -1)  # (T, G, E / G)
        if self.groups.score is GroupScore.BEST:
            of_group = grouped.max(axis=2)
        else:
            of_group = np.partition(grouped, -2, axis=2)[:, :, -2:].sum(axis=2)
        order = np.argsort(-of_group, axis=1, kind="stable")[:, :chosen]
        inside = np.zeros(of_group.shape, bool)  # (T, G)
        np.put_along_axis(inside, order, True, axis=1)
        limited = np.where(inside[:, :, None], grouped, np.float32(-np.inf))
        return np.asarray(limited.reshape(preference.shape))


def sigmoid(logits: Floats) -> Floats:
    """Return 1 / (1 + exp(-x)) in float32, without overflow."""
    return np.asarray(np.exp(-np.logaddexp(np.float32(0), -logits)))
