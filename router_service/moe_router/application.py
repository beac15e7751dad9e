"""Applies one version of a gate to rows: linear layer, context, noise, choice, capacity.

Whose rows they are, and which version is whose, is decided elsewhere. Pure over arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from moe_artifacts.artifact import GateLayer
from moe_core.contexts import Contexts
from moe_core.policy import Kind, Policy, Scoring
from moe_core.rows import GateVariant
from moe_router.capacity import enforce
from moe_router.choosers import chooser_of
from moe_router.gate import Array, Choice, Extra, Floats, Indexes, logits, rounded
from moe_router.noisy_top_k import draw


@dataclass(frozen=True, slots=True)
class Batch:
    """How many rows a sequence has, and the context that it names; empty for none."""

    rows: int
    context: str = ""


@dataclass(frozen=True, slots=True)
class Applied:
    """What a gate makes of rows: `wished` is what it chose before any capacity.

    The gate's probabilities are the softmax of `likelihoods`.
    """

    likelihoods: Floats  # (T, E)
    wished: Indexes  # (T, k)
    choice: Choice


def apply(
    variant: GateVariant, layer: GateLayer, hidden: Array, batches: Sequence[Batch]
) -> Applied:
    """Apply a version's tensors to hidden (T, H), which are these batches in order.

    A context that the version does not know changes nothing.
    """
    policy = variant.policy
    scores = _logits(policy, layer, hidden)
    if policy.contexts is not None:
        scores = scores + _biases(policy.contexts, variant.experts, batches)
    extra = Extra(tuple(batch.rows for batch in batches), layer.selection_bias)
    if policy.noise_seed is not None and layer.noise_weight is not None:
        noise = draw(hidden, len(variant.experts), policy.noise_seed)
        extra = replace(extra, noise=noise, noise_scale=logits(hidden, layer.noise_weight))
    choice = chooser_of(policy).choose(scores, extra)
    kept = enforce(choice, scores, extra, policy)
    likelihoods = scores
    if policy.scoring is Scoring.SIGMOID:  # log σ(x), whose softmax is σ(x) / Σσ
        likelihoods = -np.logaddexp(np.float32(0), -scores)
    return Applied(likelihoods, choice.experts, kept)


def _logits(policy: Policy, layer: GateLayer, hidden: Array) -> Floats:
    """Rounded where the models of a policy have a linear layer in their dtype; else float32."""
    found = logits(hidden, layer.weight, layer.bias)
    return rounded(found, hidden) if policy.kind is Kind.TOP_K else found


def _biases(known: Contexts, experts: Sequence[str], batches: Sequence[Batch]) -> Floats:
    none = (0.0,) * len(experts)
    found = {b.context: known.bias(b.context, experts) for b in batches if b.context}
    rows = [found.get(batch.context) for batch in batches]
    own = np.array([none if bias is None else bias for bias in rows], np.float32)  # (batches, E)
    return np.repeat(own, [batch.rows for batch in batches], axis=0)
