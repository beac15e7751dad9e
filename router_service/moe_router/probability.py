"""What the probabilities of a gate say: how undecided it is, and how far another one is from it.

Probabilities are the softmax of the logits. Pure over arrays; all in bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

_NATS_PER_BIT = float(np.log(2))


def log_softmax(logits: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the natural logarithms of the probabilities, over the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


def entropy_bits(logits: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the entropy (T,) of the probabilities of logits (T, E)."""
    logs = log_softmax(logits)
    return np.asarray(-(np.exp(logs) * logs).sum(axis=-1) / _NATS_PER_BIT)


def divergence_bits(base: npt.NDArray[Any], other: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the Kullback–Leibler divergence (T,) of `other` from `base`, logits (T, E) both.

    Σ p·log(p / q), p of the base and q of the other (Kullback and Leibler 1951).
    """
    logs, others = log_softmax(base), log_softmax(other)
    return np.asarray((np.exp(logs) * (logs - others)).sum(axis=-1) / _NATS_PER_BIT)
