"""Cuts a request of many rows into slices that are served one by one, and joins their answers.

Pure over arrays. Experts and combine know only single rows, so that a slice has the bits that its
rows have in the whole; what is about the whole (the gate, capacity, what is counted) comes before
and after. While one slice is worked on others pass, so that a giant never stalls the small.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from moe_core.table import Rung
from moe_router.message import Part
from moe_router.request import Request
from moe_router.sequences import Sequence as Rows
from moe_router.settle import Outcome

Array = npt.NDArray[Any]

SLICE_ROWS = 512


@dataclass(frozen=True, slots=True)
class Slice:
    """A part of a request: its rows from `first` on, of its sequences from `sequence` on."""

    request: Request
    first: int
    sequence: int


@dataclass(frozen=True, slots=True)
class Served:
    """What a request or a slice came to: rows (T, H), how its sequences fared, who answered."""

    hidden: Array
    outcomes: tuple[Outcome, ...]
    parts: tuple[Part, ...]


def cut(request: Request) -> Iterator[Slice]:
    """Give the slices of a request, in order."""
    rows = len(request.rows.hidden)
    for first in range(0, rows, SLICE_ROWS):
        yield _slice(request, first, min(first + SLICE_ROWS, rows))


def _slice(request: Request, first: int, last: int) -> Slice:
    at, whole, entropy = slice(first, last), request.rows, request.entropy
    touched = [n for n, s in enumerate(whole.sequences) if s.first < last and s.last > first]
    sequences = tuple(_within(whole.sequences[number], first, last) for number in touched)
    rows = replace(whole, hidden=whole.hidden[at], sequences=sequences)
    own = replace(
        request,
        rows=rows,
        experts=request.experts[at],
        weights=request.weights[at],
        chosen=request.chosen[at],
        entropy=None if entropy is None else entropy[at],
    )
    return Slice(own, first, touched[0])


def _within(sequence: Rows, first: int, last: int) -> Rows:
    begins, ends = max(sequence.first, first), min(sequence.last, last)
    return replace(sequence, first=begins - first, last=ends - first)


def join(request: Request, served: Sequence[tuple[Slice, Served]]) -> Served:
    """Return what the whole came to; the slices may be in any order."""
    k = request.weights.shape[1]
    hidden = np.empty(request.rows.hidden.shape, served[0][1].hidden.dtype)
    found: list[list[Outcome]] = [[] for _ in request.rows.sequences]
    parts: list[Part] = []
    for one, came in sorted(served, key=lambda pair: pair[0].first):
        hidden[one.first : one.first + len(came.hidden)] = came.hidden
        for number, outcome in enumerate(came.outcomes, one.sequence):
            found[number].append(outcome)
        parts += [replace(part, pairs=part.pairs + one.first * k) for part in came.parts]
    return Served(hidden, tuple(map(_sum, found)), tuple(parts))


def _sum(outcomes: Sequence[Outcome]) -> Outcome:
    """Return how a sequence fared of which each slice had some rows."""
    rungs: dict[tuple[Rung, str], int] = {}
    for outcome in outcomes:
        for rung, expert_id, rows in outcome.rungs:
            rungs[rung, expert_id] = rungs.get((rung, expert_id), 0) + rows
    mass, lost = sum(o.mass for o in outcomes), sum(o.lost for o in outcomes)
    return Outcome(outcomes[0].session, mass, lost, tuple((*key, n) for key, n in rungs.items()))
