"""Applies the gate of a layer to rows whose caller has not: each sequence gets its own variant.

Every variant that is present looks at all rows, and each row takes the choice of its session's.
Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from moe_core.rows import GateVariant
from moe_router.gate import Choice, Floats, TopK, logits
from moe_router.probability import entropy_bits
from moe_router.refusal import Code, Refused
from moe_router.request import Request, Rows
from moe_router.variants import EMPTY, widened

Array = npt.NDArray[Any]


def choose(rows: Rows, weights: Sequence[Array]) -> Request:
    """Choose by weights (E, H) of the rows' variants, in their order. Raises Refused."""
    found = [
        _apply(rows, variant, weight)
        for variant, weight in zip(rows.variants, weights, strict=True)
    ]
    if len(found) == 1:
        ((choice, entropy),) = found
        return Request.of(rows, choice.experts, choice.weights, entropy)
    width = max(variant.top_k for variant in rows.variants)
    at = rows.numbers(), np.arange(len(rows.hidden))
    experts = np.stack([widened(choice.experts, width, EMPTY) for choice, _ in found])[at]
    shares = np.stack([widened(choice.weights, width, 0) for choice, _ in found])[at]
    return Request.of(rows, experts, shares, np.stack([entropy for _, entropy in found])[at])


def _apply(rows: Rows, variant: GateVariant, weight: Array) -> tuple[Choice, Floats]:
    expected = (len(variant.experts), rows.hidden.shape[1])
    if weight.shape != expected:
        raise Refused(
            Code.FAILED_PRECONDITION,
            f"gate {rows.gate.name!r} has a weight of shape {weight.shape} for layer {rows.layer}; "
            f"the table wants (experts, hiddenSize) = {expected}",
        )
    scores = logits(rows.hidden, weight)
    return TopK(variant.top_k).choose(scores), entropy_bits(scores)
