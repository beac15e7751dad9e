"""Chooses experts for rows: hidden states in, row numbers of the expert list and weights out.

A policy is a pure function of arrays, so that further ones fit beside the first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Indexes = npt.NDArray[np.int32]


class Choice(NamedTuple):
    """What a gate chose: slots in falling order of weight."""

    experts: Indexes  # (T, k) rows of the gate's expert list
    weights: Floats  # (T, k)


class Policy(Protocol):
    """One way to choose experts."""

    def choose(self, logits: Floats) -> Choice:
        """Choose for logits (T, E). Equal logits go to the lower row."""
        ...


@dataclass(frozen=True, slots=True)
class TopK:
    """Softmax over all experts in float32, the k largest, scaled to the sum one.

    Mixtral's gate (Jiang et al. 2024, "Mixtral of Experts", section 2.1, which takes the softmax
    over the k largest logits: the same weights).
    """

    k: int

    def choose(self, logits: Floats) -> Choice:
        shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
        share = shifted / shifted.sum(axis=1, keepdims=True)  # (T, E)
        experts = np.argsort(-share, axis=1, kind="stable")[:, : self.k].astype(np.int32)
        weights = np.take_along_axis(share, experts, axis=1)
        return Choice(experts, weights / weights.sum(axis=1, keepdims=True))


def logits(hidden: npt.NDArray[Any], weight: npt.NDArray[Any]) -> Floats:
    """Return hidden (T, H) times weight (E, H) as float32 (T, E).

    Summed in float32 and rounded once to the dtype of `hidden`, as a linear layer of that dtype
    does; the order of the sum is the library's.
    """
    product = hidden.astype(np.float32) @ weight.astype(np.float32).T
    return product.astype(hidden.dtype).astype(np.float32)
