"""Noisy top-k gating, and noise that is the same wherever and whenever a row is scored again.

The noise of a row is drawn from the seed and the row's own bits, so that neither a retry nor what
else is in the message changes an answer. Pure: nothing here is random but by its arguments.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moe_core.policy import Weights
from moe_router.gate import Array, Choice, Extra, Floats
from moe_router.top_k import TopK

Words = npt.NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True)
class NoisyTopK:
    """The k largest of logits + N(0, 1) · softplus(noise scale), and a softmax over these.

    Shazeer et al. 2017, "Outrageously Large Neural Networks", eq. 3 to 5. Without `noise`, as in
    serving, eq. 3 alone.
    """

    k: int

    def choose(self, logits: Floats, extra: Extra) -> Choice:
        if extra.noise is not None and extra.noise_scale is not None:
            logits = logits + extra.noise * np.logaddexp(np.float32(0), extra.noise_scale)
        return TopK(self.k, Weights.SOFTMAX_OF_CHOSEN).choose(logits, extra)


def draw(hidden: Array, experts: int, seed: int) -> Floats:
    """Return standard normal numbers (T, E) for the rows of hidden (T, H), by seed and row.

    Uniform numbers are SplitMix64's (Steele et al. 2014) of a hash of the row; Box and Muller 1958
    makes them normal.
    """
    with np.errstate(over="ignore"):  # arithmetic modulo 2^64
        keys = _keys(hidden) ^ _mix(np.uint64(seed) + _GOLDEN)  # (T,)
        counters = np.arange(1, 2 * experts + 1, dtype=np.uint64) * _GOLDEN
        bits = _mix(keys[:, None] + counters)  # (T, 2E)
    uniform = ((bits >> np.uint64(11)).astype(np.float64) + 0.5) / 2.0**53  # inside (0, 1)
    radius = np.sqrt(-2 * np.log(uniform[:, :experts]))
    return np.asarray((radius * np.cos(2 * np.pi * uniform[:, experts:])).astype(np.float32))


def _keys(hidden: Array) -> Words:
    """Return a hash (T,) of each row's bits, which hangs on their order."""
    raw = np.ascontiguousarray(hidden).view(np.uint8).reshape(len(hidden), -1)
    raw = np.pad(raw, ((0, 0), (0, -raw.shape[1] % 8)))
    words = raw.view(np.uint64)  # (T, W)
    places = np.arange(1, words.shape[1] + 1, dtype=np.uint64) * _GOLDEN
    return _mix(_mix(words ^ places).sum(axis=1, dtype=np.uint64))


def _mix(value: npt.NDArray[np.uint64] | np.uint64) -> Words:
    """The finaliser of SplitMix64."""
    mixed = np.atleast_1d(np.asarray(value, np.uint64))
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(mixed ^ (mixed >> np.uint64(31)))
