"""Reads what a router counts of each version of each expert into metrics."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from moe_core.metrics import Family, Histogram, Labels, Point
from moe_core.rows import ExpertRow
from moe_core.version_names import on_trial, version_names
from moe_router import metrics as m
from moe_router.counters import Counters, VersionTally
from moe_router.ladder import Cause
from moe_router.latency import LATENCY_BOUNDS_S
from moe_router.view import View

T = TypeVar("T")

Block = tuple[Family, Iterable[Point]]


@dataclass(frozen=True, slots=True)
class _Told:
    """A version that is told of."""

    labels: Labels
    tally: VersionTally
    tried: bool


def version_metrics(mixture: str, view: View, counters: Counters) -> Iterator[Block]:
    """Give the families of experts' versions: of all, or of those on trial and the busiest."""
    told = _told(mixture, view, counters)

    def each(read: Callable[[VersionTally], int]) -> Iterator[Point]:
        return ((one.labels, read(one.tally)) for one in told)

    yield m.VERSION_REQUESTS, each(lambda tally: tally.requests)
    yield m.VERSION_ROWS, each(lambda tally: tally.rows)
    yield m.VERSION_NONFINITE, each(lambda tally: tally.nonfinite_rows)
    norms = ((one.labels, one.tally.norm_sum) for one in told)
    yield m.VERSION_NORM, ((labels, norm) for labels, norm in norms if math.isfinite(norm))
    yield m.VERSION_ERRORS, _errors(told)
    yield m.EXPERT_RUNG_ROWS, _rungs(mixture, view, counters)
    yield from _trials([one for one in told if one.tried])


def _told(mixture: str, view: View, counters: Counters) -> list[_Told]:
    """Of too many experts those on trial come first, then the busiest."""

    def rank(row: ExpertRow) -> tuple[bool, int]:
        rows = counters.of(row.expert_id, row.stable.sha256).rows if row.stable else 0
        return row.candidate is not None, rows

    every = [
        _Told((mixture, row.expert_id, name), counters.of(row.expert_id, sha256), on_trial(row))
        for row in busiest(view.table.experts, m.MAX_EXPERTS, rank)
        for sha256, name in version_names(row).items()
    ]
    return busiest(every, m.MAX_EXPERTS, lambda one: (one.tried, one.tally.rows))


def busiest(every: Sequence[T], limit: int, rank: Callable[[T], tuple[bool, int]]) -> list[T]:
    """Return all, or of too many the first ones by rank: what is on trial, then the busiest."""
    return list(every) if len(every) <= limit else heapq.nlargest(limit, every, key=rank)


def _errors(told: Iterable[_Told]) -> Iterator[Point]:
    """Of what is on trial a cause that was not seen yet is told, too, so that a rise is one."""
    for one in told:
        errors = one.tally.errors.copy()
        for cause in Cause:
            if one.tried or errors[cause]:
                yield (*one.labels, cause), errors[cause]


def _rungs(mixture: str, view: View, counters: Counters) -> Iterator[Point]:
    every = [
        (rows, expert_id, rung)
        for (rung, expert_id), rows in counters.rungs.items()
        if expert_id in view.experts
    ]
    for rows, expert_id, rung in busiest(every, m.MAX_EXPERTS, lambda one: (False, one[0])):
        yield (mixture, expert_id, rung), rows


def _trials(tried: list[_Told]) -> Iterator[Block]:
    def each(read: Callable[[VersionTally], int | Histogram]) -> Iterator[Point]:
        return ((one.labels, read(one.tally)) for one in tried)

    yield (
        m.TRIAL_LATENCY,
        each(lambda tally: Histogram.of(LATENCY_BOUNDS_S, tally.latency_counts, tally.latency_s)),
    )
    yield m.TRIAL_PAIRS, each(lambda tally: tally.session_pairs)
    yield m.TRIAL_OVERFLOW, each(lambda tally: tally.overflow_pairs)
    yield m.SHADOW_REQUESTS, each(lambda tally: tally.shadow.requests)
    yield m.SHADOW_ROWS, each(lambda tally: tally.shadow.rows)
    yield m.SHADOW_ERRORS, each(lambda tally: tally.shadow.errors)
