"""Compares a gate's candidate with its stable version on live rows, and with nothing else.

Which rows, and what the two make of them: how far the chosen sets overlap, how far probabilities
diverge, which experts get how much, and what would overflow. No answer depends on it. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from moe_artifacts.artifact import GateLayer
from moe_core.rows import GateVariant
from moe_router.application import Batch, apply
from moe_router.overflow import count_overflow
from moe_router.probability import divergence_bits, entropy_bits
from moe_router.request import Request
from moe_router.shadow import due
from moe_router.variants import EMPTY, Indexes, one_list
from moe_router.view import View

Array = npt.NDArray[Any]

ROWS_PER_SAMPLE = 64


@dataclass(frozen=True, slots=True)
class Sample:
    """Rows (n, H) of sessions on a gate's stable version, and whose they are, in order."""

    gate: str
    layer: int
    base: GateVariant
    candidate: GateVariant
    hidden: Array
    batches: tuple[Batch, ...]

    @property
    def products(self) -> int:
        """How many multiplications it takes to score them by both."""
        experts = len(self.base.experts) + len(self.candidate.experts)
        return int(self.hidden.size) * experts


@dataclass(frozen=True, slots=True)
class Scored:
    """What a sample tells: sums over its rows. `pairs` are by the expert lists of the two."""

    rows: int
    overlap: float
    divergence: float
    entropy: float
    base_entropy: float
    pairs: Array  # (E,) int64
    base_pairs: Array  # (E',) int64
    overflow_pairs: int
    base_overflow_pairs: int

    def plus(self, other: Scored) -> Scored:
        """Return the sums over both samples, which are of the same two versions."""
        return Scored(
            self.rows + other.rows,
            self.overlap + other.overlap,
            self.divergence + other.divergence,
            self.entropy + other.entropy,
            self.base_entropy + other.base_entropy,
            self.pairs + other.pairs,
            self.base_pairs + other.base_pairs,
            self.overflow_pairs + other.overflow_pairs,
            self.base_overflow_pairs + other.base_overflow_pairs,
        )


def sample(request: Request, newest: View, turn: int) -> Sample | None:
    """Return what of an answered request the candidate is to look at; None for nothing.

    Rows are taken evenly from all those of sessions that the stable version chose for.
    """
    rows = request.rows
    row = newest.gates.get(rows.layer)
    if row is None or row.candidate is None or row.rollout is None:
        return None
    if not due(turn, row.rollout.shadow_percent):
        return None
    mine = [s for s in rows.sequences if s.gate.sha256 == row.stable.sha256 and not s.evaluates]
    if not mine:
        return None
    sizes = [s.last - s.first for s in mine]
    every = np.concatenate([np.arange(s.first, s.last) for s in mine])
    batch = np.repeat(np.arange(len(mine)), sizes)
    if len(every) > ROWS_PER_SAMPLE:
        spread = np.linspace(0, len(every) - 1, ROWS_PER_SAMPLE).astype(np.intp)
        every, batch = every[spread], batch[spread]
    counts = np.bincount(batch, minlength=len(mine)).tolist()
    batches = tuple(Batch(n, s.context) for n, s in zip(counts, mine, strict=True) if n)
    return Sample(row.name, rows.layer, row.stable, row.candidate, rows.hidden[every], batches)


def score(seen: Sample, base_layer: GateLayer, layer: GateLayer) -> Scored:
    """Have both versions choose for the rows, before any capacity."""
    of_base = apply(seen.base, base_layer, seen.hidden, seen.batches)
    of_other = apply(seen.candidate, layer, seen.hidden, seen.batches)
    base, other = of_base.likelihoods, of_other.likelihoods
    chosen_base, chosen = of_base.wished, of_other.wished
    names, (base_places, places) = one_list((seen.base, seen.candidate))
    overlap = jaccard(base_places[chosen_base], places[chosen], len(names))
    in_base, in_other = _shared(seen.base.experts, seen.candidate.experts)
    divergence = divergence_bits(base[:, in_base], other[:, in_other]) if in_base else np.zeros(1)
    return Scored(
        rows=len(seen.hidden),
        overlap=float(overlap.sum()),
        divergence=float(divergence.sum(dtype=np.float64)),
        entropy=float(entropy_bits(other).sum(dtype=np.float64)),
        base_entropy=float(entropy_bits(base).sum(dtype=np.float64)),
        pairs=_pairs(chosen, len(seen.candidate.experts)),
        base_pairs=_pairs(chosen_base, len(seen.base.experts)),
        overflow_pairs=_overflow(chosen, seen.batches, seen.candidate),
        base_overflow_pairs=_overflow(chosen_base, seen.batches, seen.base),
    )


def jaccard(first: Indexes, second: Indexes, experts: int) -> npt.NDArray[np.float64]:
    """Return |A ∩ B| / |A ∪ B| (T,) of the sets in the rows of (T, k) and (T, k').

    Jaccard 1901. Both are numbers of one list of experts, or EMPTY; two empty sets are equal.
    """
    a, b = _members(first, experts), _members(second, experts)
    union = (a | b).sum(axis=1)
    common = (a & b).sum(axis=1)
    return np.where(union > 0, common / np.maximum(union, 1), 1.0)


def _members(chosen: Indexes, experts: int) -> npt.NDArray[np.bool_]:
    members = np.zeros((len(chosen), experts + 1), bool)  # the last column is for EMPTY
    np.put_along_axis(members, np.where(chosen == EMPTY, experts, chosen), True, axis=1)
    return members[:, :experts]


def _shared(base: Sequence[str], other: Sequence[str]) -> tuple[list[int], list[int]]:
    """Return where the two lists have the experts that both know, in one order."""
    numbers = {expert_id: number for number, expert_id in enumerate(other)}
    pairs = [(n, numbers[expert_id]) for n, expert_id in enumerate(base) if expert_id in numbers]
    return [n for n, _ in pairs], [m for _, m in pairs]


def _pairs(chosen: Indexes, experts: int) -> npt.NDArray[np.int64]:
    return np.bincount(chosen.ravel() + 1, minlength=experts + 1)[1:].astype(np.int64)


def _overflow(chosen: Indexes, batches: Sequence[Batch], variant: GateVariant) -> int:
    ends = np.cumsum([batch.rows for batch in batches])[:-1]
    parts = np.split(chosen, ends)
    return sum(count_overflow(part, variant.top_k, len(variant.experts)) for part in parts)
