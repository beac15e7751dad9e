"""Applies the gate of a layer to rows whose caller has not: each sequence gets its own variant.

Every variant that is present looks at all rows, and each row takes the choice of its session's.
Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from moe_artifacts.artifact import GateLayer
from moe_core.rows import GateVariant
from moe_router.application import Applied, Batch, apply
from moe_router.gate import Array
from moe_router.probability import entropy_bits
from moe_router.refusal import Code, Refused
from moe_router.request import Request, Rows
from moe_router.variants import EMPTY, widened


def choose(rows: Rows, layers: Sequence[GateLayer]) -> Request:
    """Choose by the tensors of the rows' variants, in their order. Raises Refused."""
    batches = [Batch(s.last - s.first, s.context) for s in rows.sequences]
    found = [
        _apply(rows, variant, layer, batches)
        for variant, layer in zip(rows.variants, layers, strict=True)
    ]
    entropies = [entropy_bits(one.likelihoods) for one in found]
    if len(found) == 1:
        ((one,), (entropy,)) = found, entropies
        return Request.of(rows, one.choice.experts, one.choice.weights, entropy, one.wished)
    at = rows.numbers(), np.arange(len(rows.hidden))
    experts = _side_by_side([one.choice.experts for one in found], EMPTY)[at]
    shares = _side_by_side([one.choice.weights for one in found], 0)[at]
    wished = _side_by_side([one.wished for one in found], EMPTY)[at]
    return Request.of(rows, experts, shares, np.stack(entropies)[at], wished)


def _side_by_side(arrays: Sequence[Array], fill: int) -> Array:
    """Return (variants, T, k) of arrays (T, k), for the widest."""
    width = max(array.shape[1] for array in arrays)
    return np.stack([widened(array, width, fill) for array in arrays])


def _apply(rows: Rows, variant: GateVariant, layer: GateLayer, batches: Sequence[Batch]) -> Applied:
    expected = (len(variant.experts), rows.hidden.shape[1])
    if layer.weight.shape != expected:
        raise Refused(
            Code.FAILED_PRECONDITION,
            f"gate {rows.gate.name!r} has a weight of shape {layer.weight.shape} for layer "
            f"{rows.layer}; the table wants (experts, hiddenSize) = {expected}",
        )
    return apply(variant, layer, rows.hidden, batches)
