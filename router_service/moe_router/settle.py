"""Turns what the experts answered into a layer's output, and says how degraded it is.

Pure over arrays. A pair that nobody answered either gives its weight to the other experts of its
token (renormalise, keeping the sum of the weights) or counts as nothing (the residual alone).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from moe_core.combine import combine
from moe_core.table import Rung
from moe_router.ladder import NOT_DEGRADED
from moe_router.plan import Pairs
from moe_router.request import Request
from moe_router.sequences import Sequence as Rows

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Climb:
    """Pairs of one chosen expert that a rung answered for."""

    rung: Rung
    expert_id: str
    pairs: Pairs


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one sequence of a request fared: its gate mass, what of it was degraded, by whom."""

    session: str
    mass: float
    lost: float
    rungs: tuple[tuple[Rung, str, int], ...]  # rung, expert id, rows


def settle(request: Request, rows: Array, climbs: Sequence[Climb]) -> Array:
    """Combine the answers `rows` (T, k, H) into (T, H) in their dtype.

    The rows of pairs that nobody answered must be zero. Where no pair was left, the weights are
    used as they came, so that the result is bit for bit that of the healthy model.
    """
    weights = request.weights
    renormalised = _mask(climbs, Rung.RENORMALISE, weights.shape)
    left = renormalised | _mask(climbs, Rung.RESIDUAL, weights.shape)
    if left.any():
        weights = _renormalise(weights, renormalised, left)
    return combine(rows, weights, rows.dtype)


def _mask(climbs: Sequence[Climb], rung: Rung, shape: tuple[int, ...]) -> Array:
    mask = np.zeros(shape, bool)
    for climb in climbs:
        if climb.rung is rung:
            mask.ravel()[climb.pairs] = True
    return mask


def _renormalise(weights: Array, renormalised: Array, left: Array) -> Array:
    wide = weights.astype(np.float32)
    kept = np.where(left, 0, wide)  # (T, k)
    given = np.where(renormalised, wide, 0).sum(axis=1, keepdims=True)
    sums = kept.sum(axis=1, keepdims=True)
    scale = np.where((sums > 0) & (given > 0), (sums + given) / np.where(sums > 0, sums, 1), 1)
    return np.asarray((kept * scale).astype(weights.dtype))


def outcomes(request: Request, climbs: Sequence[Climb]) -> tuple[Outcome, ...]:
    """Return how each sequence fared, in the request's order."""
    wide = request.weights.astype(np.float64).ravel()
    k = request.weights.shape[1]
    return tuple(_outcome(rows, wide, k, climbs) for rows in request.rows.sequences)


def _outcome(rows: Rows, weights: Array, k: int, climbs: Sequence[Climb]) -> Outcome:
    lost, rungs = 0.0, []
    for climb in climbs:
        low, high = np.searchsorted(climb.pairs, (rows.first * k, rows.last * k))
        if low == high:
            continue
        rungs.append((climb.rung, climb.expert_id, int(high - low)))
        if climb.rung not in NOT_DEGRADED:
            lost += float(weights[climb.pairs[low:high]].sum())
    mass = float(weights[rows.first * k : rows.last * k].sum())
    return Outcome(rows.session, mass, lost, tuple(rungs))
