"""Top-k gating: the k experts with the largest logits, weighted by softmax. Pure over arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moe_core.policy import Weights
from moe_router.gate import Choice, Extra, Floats, best, renormalised, softmax, taken
from moe_router.variants import EMPTY


@dataclass(frozen=True, slots=True)
class TopK:
    """The k best of a softmax over all experts in float32 (Shazeer et al. 2017, §2.1, on logits).

    `Renormalised` scales them to the sum one: Mixtral (Jiang et al. 2024, "Mixtral of Experts",
    §2.1), Qwen3-MoE where its configuration says so, and with k = 2 GShard (Lepikhin et al. 2020,
    §2.2) and GLaM (Du et al. 2022, §3). `AsScored` leaves them: OLMoE (Muennighoff et al. 2024,
    §2), Qwen2-MoE, and with k = 2 Grok-1 (xAI 2024). `SoftmaxOfChosen` takes the softmax over the
    k chosen logits: GPT-OSS (OpenAI 2025).
    With k = 1 and `AsScored` it is the Switch Transformer's (Fedus et al. 2022, §2.1, eq. 2).
    """

    k: int
    weights: Weights = Weights.RENORMALISED

    def choose(self, logits: Floats, extra: Extra) -> Choice:
        if self.weights is Weights.SOFTMAX_OF_CHOSEN:
            experts = best(logits, self.k, extra)
            chosen = np.where(experts == EMPTY, np.float32(-np.inf), taken(logits, experts))
            return Choice(experts, softmax(chosen))
        shares = softmax(logits)  # (T, E)
        experts = best(shares, self.k, extra)
        weights = taken(shares, experts)
        return Choice(experts, renormalised(weights) if self._scales else weights)

    @property
    def _scales(self) -> bool:
        return self.weights is Weights.RENORMALISED
