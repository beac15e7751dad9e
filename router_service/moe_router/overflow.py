"""Counts what experts with a capacity would have dropped, by the version that a session is on.

A batch is one session's rows of one message: at a capacity factor of 1.2 an expert takes
C = ceil(1.2·k·T/E) of its T·k (row, slot) pairs, earlier positions first (Switch Transformers,
Fedus et al. 2022, §2.2), and what is beyond overflows. This is only observed, of what the gate
chose; `capacity` enforces what a policy sets. What a version writes into the residual changes
where later layers send rows, so the pairs of all layers and experts count for the arm that the
session is in. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from moe_core.pins import weight_since
from moe_core.rows import ExpertRow, GateRow
from moe_router.request import Request
from moe_router.sessions import Pins
from moe_router.variants import EMPTY
from moe_router.view import View

_FACTOR = (6, 5)  # 1.2, in whole numbers so that nothing is rounded up for a rounding error


@dataclass(frozen=True, slots=True)
class Subject:
    """A version of an expert, by its id, or of a gate, by its name."""

    name: str
    sha256: str
    gate: bool = False


@dataclass(frozen=True, slots=True)
class Load:
    """The (row, slot) pairs of one batch, for one version, and how many of them overflow.

    `begins` where the session's first request is this one.
    """

    of: Subject
    pairs: int
    overflowing: int
    begins: bool


def capacity(rows: int, top_k: int, experts: int, factor: tuple[int, int] = _FACTOR) -> int:
    """Return how many pairs of a batch one expert takes, rounded up; the factor is a fraction."""
    above, below = factor
    return -(-above * top_k * rows // (below * experts))


def count_overflow(chosen: npt.NDArray[Any], top_k: int, experts: int) -> int:
    """Return the pairs of a batch beyond capacity.

    `chosen` is (T, slots), from 0 to E - 1 or EMPTY; a gate sends rows to `top_k` experts.
    """
    pairs = np.bincount(chosen[chosen != EMPTY], minlength=experts)  # (E,)
    return int(np.maximum(pairs - capacity(len(chosen), top_k, experts), 0).sum())


def loads(request: Request, view: View) -> Iterator[Load]:
    """Give the load of each batch for each expert or gate on trial whose arm chance drew.

    A batch so small that no expert can overflow (C ≥ T; one row always is) tells nothing of a
    version, and would only hide what the others tell.
    """
    rows: list[ExpertRow | GateRow] = [*view.tried, *view.tried_gates]
    trials = [(row, since) for row in rows if (since := _drawn_since(row, view)) is not None]
    if not trials:
        return
    for sequence in request.rows.sequences:
        experts, top_k = len(sequence.gate.experts), sequence.gate.top_k
        chosen = request.chosen[sequence.first : sequence.last]  # (T, slots)
        if sequence.evaluates or capacity(len(chosen), top_k, experts) >= len(chosen):
            continue
        begins = sequence.start is None
        began = view.table.epoch if sequence.start is None else sequence.start.epoch
        drawn = [row for row, since in trials if began >= since]
        if not drawn:
            continue
        pairs, overflowing = int((chosen != EMPTY).sum()), count_overflow(chosen, top_k, experts)
        for row in drawn:
            if (of := _subject(row, sequence.pins)) is not None:
                yield Load(of, pairs, overflowing, begins)


def _subject(row: ExpertRow | GateRow, pins: Pins) -> Subject | None:
    """Return which version of what is on trial a session is on."""
    if isinstance(row, GateRow):
        return Subject(row.name, pins.gate(row).sha256, gate=True)
    version = pins.of(row)
    return None if version is None else Subject(row.expert_id, version.sha256)


def _drawn_since(row: ExpertRow | GateRow, view: View) -> int | None:
    """Return the epoch from which on sessions are drawn under the weight in force.

    None where all of them are on one side. Older sessions do not count: most of them are on
    stable, and what a session sends when it is old (single tokens) overflows less.
    """
    since = weight_since(row.rollout.weights, view.table.epoch) if row.rollout else None
    return since.epoch if since is not None and 0 < since.percent < 100 else None
