"""What gates are made of: logits of rows, choices of experts, and the interface between the two.

A way of choosing is a pure function of arrays; each has a module of its own. It knows neither
sessions nor tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from moe_router.variants import EMPTY

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
Indexes = npt.NDArray[np.int32]


class Choice(NamedTuple):
    """What a gate chose: slots in falling order of preference."""

    experts: Indexes  # (T, k) rows of the gate's expert list, or EMPTY
    weights: Floats  # (T, k), 0 where there is no expert


@dataclass(frozen=True, slots=True)
class Extra:
    """What some ways of choosing need beside the logits (T, E).

    `batches` are the rows of each sequence, in order, which add up to T. `selection_bias` is
    learned. `noise` is a draw of the standard normal distribution for each logit, and
    `noise_scale` what the gate has learned of its size. `barred` are not chosen, whatever their
    scores.
    """

    batches: tuple[int, ...] = ()
    selection_bias: Floats | None = None  # (E,)
    noise: Floats | None = None  # (T, E)
    noise_scale: Floats | None = None  # (T, E)
    barred: npt.NDArray[np.bool_] | None = None  # (T, E)


class Chooser(Protocol):
    """One way to choose experts."""

    def choose(self, logits: Floats, extra: Extra) -> Choice:
        """Choose for logits (T, E). Equal ones go to the lower row of the list."""
        ...


def logits(hidden: Array, weight: Array, bias: Array | None = None) -> Floats:
    """Return hidden (T, H) times weight (E, H), plus bias (E,), as float32 (T, E).

    Summed in float32; the order of the sum is the library's.
    """
    product = hidden.astype(np.float32) @ weight.astype(np.float32).T
    return product if bias is None else product + bias.astype(np.float32)


def rounded(found: Floats, hidden: Array) -> Floats:
    """Return logits rounded to the dtype of the hidden states, as a linear layer of it does."""
    return found.astype(hidden.dtype).astype(np.float32)


def softmax(scores: Floats) -> Floats:
    """Return the softmax over the last axis; what is -inf gets 0."""
    highest = scores.max(axis=-1, keepdims=True)
    shifted = np.exp(scores - np.where(np.isneginf(highest), 0, highest))
    sums = shifted.sum(axis=-1, keepdims=True)
    return np.asarray(shifted / np.where(sums == 0, 1, sums))


def best(preference: Floats, k: int, extra: Extra) -> Indexes:
    """Return the k most preferred experts (T, k) of (T, E), in falling order.

    EMPTY where fewer are left than k: those that are barred, or preferred by -inf, are not chosen.
    """
    if extra.barred is not None:
        preference = np.where(extra.barred, -np.inf, preference)
    experts = np.argsort(-preference, axis=1, kind="stable")[:, :k]
    out = np.isneginf(np.take_along_axis(preference, experts, axis=1))
    return np.where(out, EMPTY, experts).astype(np.int32)


def taken(scores: Floats, experts: Indexes) -> Floats:
    """Return the scores (T, k) of the chosen ones among (T, E); 0 where there is none."""
    found = np.take_along_axis(scores, np.maximum(experts, 0), axis=1)
    return np.where(experts == EMPTY, np.float32(0), found)


def renormalised(weights: Floats) -> Floats:
    """Return weights (T, k) scaled to the sum one; a row of zeros stays as it is."""
    sums = weights.sum(axis=1, keepdims=True)
    return np.asarray(weights / np.where(sums == 0, 1, sums))
