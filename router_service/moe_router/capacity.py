"""Enforces the capacity of experts, where a policy sets one: what is beyond it goes elsewhere.

A batch is one sequence's rows of one message, and an expert takes C = ceil(factor·k·T/E) of its
(row, slot) pairs, earlier positions first (Switch Transformers, Fedus et al. 2022, §2.2), so that
no tenant changes another's answer. Pure over arrays.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from moe_core.policy import Capacity, Overflow, Policy
from moe_router.choosers import chooser_of
from moe_router.gate import Choice, Extra, Floats, Indexes
from moe_router.overflow import capacity
from moe_router.variants import EMPTY


def enforce(choice: Choice, logits: Floats, extra: Extra, policy: Policy) -> Choice:
    """Return what is left of a choice by the capacity of its policy.

    `Residual`: a pair beyond it has no expert, and nobody else gets its weight. `NextBest`: a row
    is chosen for as if the experts that are full by then were not there; it has fewer experts
    where too few have room.
    """
    limits = policy.capacity
    if limits is None:
        return choice
    crowded = [
        (first, last, room)
        for first, last in _parts(extra.batches)
        if (room := _room(limits, last - first, policy.top_k, logits.shape[1])) < last - first
    ]
    if not crowded:
        return choice
    if limits.overflow is Overflow.RESIDUAL:
        experts = choice.experts.copy()
        for first, last, room in crowded:
            experts[first:last][_rank(experts[first:last]) >= room] = EMPTY
        return Choice(experts, np.where(experts == EMPTY, np.float32(0), choice.weights))
    return _next_best(choice, logits, extra, policy, crowded)


def _room(limits: Capacity, rows: int, top_k: int, experts: int) -> int:
    return capacity(rows, top_k, experts, limits.factor.as_integer_ratio())


def _parts(batches: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    first = 0
    for rows in batches:
        yield first, first + rows
        first += rows


def _rank(experts: Indexes) -> npt.NDArray[np.intp]:
    """Return how many earlier pairs of (T, k) have the same expert; of EMPTY slots it is -1."""
    flat = experts.ravel()
    order = np.argsort(flat, kind="stable")
    _, starts, counts = np.unique(flat[order], return_index=True, return_counts=True)
    ranks = np.empty(len(flat), np.intp)
    ranks[order] = np.arange(len(flat)) - np.repeat(starts, counts)
    ranks[flat == EMPTY] = -1
    return ranks.reshape(experts.shape)


def _next_best(
    choice: Choice,
    logits: Floats,
    extra: Extra,
    policy: Policy,
    crowded: list[tuple[int, int, int]],
) -> Choice:
    """Fill experts row by row, then weigh what was found as the policy does."""
    every = replace(policy, top_k=logits.shape[1])
    order = chooser_of(every).choose(logits, extra).experts  # (T, E), best first
    found = choice.experts.copy()
    for first, last, room in crowded:
        _fill(found[first:last], order[first:last], room)
    allowed = np.zeros((len(found), logits.shape[1] + 1), bool)  # the last column is for EMPTY
    np.put_along_axis(allowed, found, True, axis=1)
    barred = ~allowed[:, :-1]
    return chooser_of(policy).choose(logits, replace(extra, barred=barred))


def _fill(found: Indexes, order: Indexes, room: int) -> None:
    """Give each row of `found` (T, k) its best experts that are not full; in place."""
    used = [0] * order.shape[1]
    for row, wished in enumerate(found.tolist()):
        if any(used[expert] >= room for expert in wished if expert != EMPTY):
            left = (e for e in order[row].tolist() if e != EMPTY and used[e] < room)
            wished = [next(left, EMPTY) for _ in wished]
            found[row] = wished
        for expert in wished:
            if expert != EMPTY:
                used[expert] += 1
