"""A gate in torch, of any policy: what to train and measure with, in place of a model's own.

Experts are chosen by the very code of the router; only how they are weighted is written again
here, because gradients flow through it. Noise is drawn from the row's float32 bits here, and so is
another draw of the same distribution than the one served.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from moe_artifacts.metadata import BIAS, NOISE_WEIGHT, SELECTION_BIAS, WEIGHT
from moe_core.policy import Overflow, Policy, Scoring, Weights
from moe_router.capacity import enforce
from moe_router.choosers import chooser_of
from moe_router.gate import Extra
from moe_router.noisy_top_k import draw

_TINY = 1e-20


class PolicyRouter(nn.Module):
    """Answers rows (T, H) as transformers' router modules do: logits (T, E), weights (T, k) and
    indices (T, k). A slot without an expert has weight 0 and index 0."""

    weight: nn.Parameter
    bias: nn.Parameter | None
    noise_weight: nn.Parameter | None

    def __init__(self, policy: Policy, learned: Mapping[str, Tensor]) -> None:
        """`learned` are the tensors of one layer, by their names in an artifact."""
        super().__init__()
        self.policy = policy
        self.lengths: tuple[int, ...] = ()  # rows of each sequence of the next call; all are one
        for name in (WEIGHT, BIAS, NOISE_WEIGHT):
            tensor = learned.get(name)
            held = None if tensor is None else nn.Parameter(tensor.clone(), requires_grad=False)
            self.register_parameter(name, held)
        self.selection_bias = learned.get(SELECTION_BIAS)

    @property
    def learned(self) -> Mapping[str, Tensor]:
        """Copies of its tensors as they are now."""
        own: dict[str, Tensor | None] = {
            WEIGHT: self.weight,
            BIAS: self.bias,
            NOISE_WEIGHT: self.noise_weight,
        }
        own[SELECTION_BIAS] = self.selection_bias
        return {name: held.detach().clone() for name, held in own.items() if held is not None}

    def logits(self, hidden: Tensor) -> Tensor:
        """Return (T, E), without noise."""
        return functional.linear(hidden, self.weight, self.bias)

    def contest(self, logits: Tensor) -> Tensor:
        """Return logits (T, E) of which the last expert's compete with the others' as they are,
        whatever is added to scores for the selection."""
        if self.selection_bias is None:
            return logits
        *others, own = self.selection_bias.tolist()
        needed = rivals(self.policy, logits[:, :-1], torch.tensor(others), own)
        return torch.cat([needed, logits[:, -1:]], dim=1)

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rows = hidden.reshape(-1, hidden.shape[-1])
        logits = self.logits(rows)
        scores, extra = logits, Extra(self.lengths or (len(rows),))
        if self.selection_bias is not None:
            extra = replace(extra, selection_bias=self.selection_bias.numpy())
        if self.policy.noise_seed is not None and self.noise_weight is not None:
            noise = draw(rows.detach().numpy(), logits.shape[1], self.policy.noise_seed)
            scale = functional.softplus(functional.linear(rows, self.noise_weight))
            scores = logits + torch.from_numpy(noise) * scale
        weights, index = self._choose(scores, extra)
        return logits, weights, index

    def _choose(self, scores: Tensor, extra: Extra) -> tuple[Tensor, Tensor]:
        known = scores.detach().numpy()
        wished = chooser_of(self.policy).choose(known, extra)
        kept = enforce(wished, known, extra, self.policy)
        capacity = self.policy.capacity
        dropping = capacity is not None and capacity.overflow is Overflow.RESIDUAL
        weighed = wished if dropping else kept  # what is dropped leaves its weight to nobody
        weights = weigh(self.policy, scores, _tensor(weighed.experts))
        index = _tensor(kept.experts)
        return torch.where(index < 0, 0.0, weights), index.clamp_min(0)


def weigh(policy: Policy, scores: Tensor, index: Tensor) -> Tensor:
    """Return the weights (T, k) of chosen experts; 0 where the index is that of nobody."""
    nobody, chosen = index < 0, index.clamp_min(0)
    if policy.weighting is Weights.SOFTMAX_OF_CHOSEN:
        own = scores.gather(1, chosen).masked_fill(nobody, torch.finfo(scores.dtype).min)
        return own.softmax(-1).masked_fill(nobody, 0.0)
    weights = _scored(policy, scores).gather(1, chosen).masked_fill(nobody, 0.0)
    if policy.weighting is Weights.RENORMALISED:
        weights = weights / (weights.sum(1, keepdim=True) + _TINY)
    return weights * float(policy.routed_scaling)


def rivals(policy: Policy, logits: Tensor, bias: Tensor | None, own: float) -> Tensor:
    """Return the logits (T, E) that one more expert needs to be preferred as each of these is.

    `bias` (E,) is their selection bias, `own` that of the one more. Without any it is `logits`.
    """
    if bias is None:
        return logits
    needed = (_scored(policy, logits) + bias - own).clamp(1e-6, 1 - 1e-6)
    if policy.scoring is Scoring.SIGMOID:
        return torch.logit(needed)
    return needed.log() + logits.logsumexp(1, keepdim=True)


def _scored(policy: Policy, scores: Tensor) -> Tensor:
    return scores.sigmoid() if policy.scoring is Scoring.SIGMOID else scores.softmax(-1)


def _tensor(experts: np.ndarray[tuple[int, ...], np.dtype[np.int32]]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(experts)).long()
