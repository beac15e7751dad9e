"""Overflow: what a capacity of 1.2 would have dropped, by the version that a session is on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_core.pins import bucket
from moe_core.rollout import WeightSince
from moe_core.rows import ExpertRow
from moe_core.table import Table
from moe_router.overflow import capacity, count_overflow
from moe_router.variants import EMPTY
from moeops.v1.router_pb2 import ForcedVersion, SequenceRows
from tests.router.bench import A2, A, B, Bench, C, canary, mixture, worker

CROWDED = [[0, 1]] * 5  # C = ceil(1.2 · 2 · 5 / 3) = 4: one pair beyond it at each of two experts
SPREAD = [[0, 1], [1, 2], [2, 0], [0, 1], [1, 2]]
NONE, CROWD = (0, 0), (10, 2)


@st.composite
def batches(draw: st.DrawFn) -> tuple[list[list[int]], int]:
    experts = draw(st.integers(1, 12))
    top_k = draw(st.integers(1, experts))
    row = st.lists(st.integers(EMPTY, experts - 1), min_size=top_k, max_size=top_k)
    return draw(st.lists(row, min_size=1, max_size=40)), experts


@given(batches())
def test_overflow_is_what_a_filling_expert_would_turn_away(
    batch: tuple[list[list[int]], int],
) -> None:
    chosen, experts = batch
    takes = math.ceil(Fraction(12, 10) * len(chosen[0]) * len(chosen) / experts)
    taken, turned_away = [0] * experts, 0
    for row in chosen:
        for expert in row:
            if expert == EMPTY:
                continue
            if taken[expert] < takes:
                taken[expert] += 1
            else:
                turned_away += 1

    assert capacity(len(chosen), len(chosen[0]), experts) == takes
    assert count_overflow(np.array(chosen, np.int32), len(chosen[0]), experts) == turned_away


def house(*rows: ExpertRow, epoch: int = 1) -> Bench:
    content = replace(mixture(*rows), epoch=epoch)
    return Bench(content, {"old": worker(A, B, C), "new": worker(A2)})


def raised(*weights: tuple[int, int]) -> ExpertRow:
    row = canary()
    assert row.rollout is not None
    entries = tuple(WeightSince(epoch, percent) for epoch, percent in weights)
    return replace(row, rollout=replace(row.rollout, weights=entries))


def at(row: ExpertRow, epoch: int) -> Table:
    return replace(mixture(row), epoch=epoch)


def session(candidate: bool) -> str:
    """Return one that is on this side at 50%."""
    names = (f"s{n}" for n in range(100))
    return next(name for name in names if (bucket("salt", name) < 5_000) is candidate)


def rows(name: str, count: int = 5, token: bytes = b"") -> SequenceRows:
    return SequenceRows(session=name, rows=count, start_token=token)


def counted(bench: Bench) -> list[tuple[int, int]]:
    """Pairs and those that overflow, of the candidate and of stable."""
    tallies = {key[1]: tally for key, tally in bench.engine.counters.versions()}
    return [
        (tallies[v.sha256].session_pairs, tallies[v.sha256].overflow_pairs)
        if v.sha256 in tallies
        else NONE
        for v in (A2, A)
    ]


async def test_each_session_counts_for_the_version_that_it_is_on() -> None:
    bench = house(canary(50))
    both = [rows(session(candidate=True)), rows(session(candidate=False))]
    await bench.dispatch(CROWDED + SPREAD, sessions=both)
    assert counted(bench) == [CROWD, (10, 0)]

    await bench.dispatch(SPREAD + CROWDED, sessions=both)
    assert counted(bench) == [(20, 2), (20, 2)]


async def test_a_session_is_counted_once_however_many_requests_it_sends() -> None:
    bench = house(canary(50))
    name = session(candidate=True)
    first = await bench.dispatch(SPREAD, sessions=[rows(name)])
    await bench.dispatch(CROWDED, sessions=[rows(name, token=first.fates[0].token)])
    assert counted(bench) == [(20, 2), NONE]
    assert bench.tally(A2).overflow_sessions == 1


async def test_experts_that_are_not_on_trial_are_not_counted_for() -> None:
    bench = house(canary(50))
    await bench.dispatch(CROWDED)
    assert bench.tally(B).rows == 5
    assert bench.tally(B).session_pairs == 0


@pytest.mark.parametrize(
    "content",
    [
        pytest.param((), id="no rollout"),
        pytest.param((canary(0),), id="in the dark"),
        pytest.param((canary(100),), id="all sessions are on the candidate"),
        pytest.param((canary(50, stable=None),), id="no stable version"),
    ],
)
async def test_nothing_is_counted_where_no_draw_decides(content: Sequence[ExpertRow]) -> None:
    bench = house(*content)
    await bench.dispatch(CROWDED)
    assert counted(bench) == [NONE, NONE]


async def test_sessions_that_began_under_another_weight_are_not_counted() -> None:
    bench = house(raised((1, 50)))
    name = session(candidate=True)
    first = await bench.dispatch(SPREAD, sessions=[rows(name)])
    token = first.fates[0].token
    assert counted(bench) == [(10, 0), NONE]

    bench.offer(at(raised((1, 50), (2, 60)), 2))
    await bench.dispatch(CROWDED, sessions=[rows(name, token=token)])
    assert counted(bench) == [(10, 0), NONE]

    await bench.dispatch(CROWDED, sessions=[rows(name)])  # anew
    assert counted(bench) == [(20, 2), NONE]


async def test_forced_rows_and_batches_that_cannot_overflow_are_not_counted() -> None:
    bench = house(canary(50))
    forced = rows("s")
    forced.forced.append(ForcedVersion(expert_id="a", sha256=A2.sha256))
    await bench.dispatch(CROWDED, sessions=[forced])
    await bench.dispatch(CROWDED, sessions=[rows(f"s{n}", 1) for n in range(5)])
    await bench.dispatch(CROWDED[:4])  # C is 4, too
    assert counted(bench) == [NONE, NONE]


async def test_a_request_that_is_not_answered_is_not_counted() -> None:
    bench = Bench(mixture(canary(50), ladder=()), {})
    await bench.refused(CROWDED)
    assert [pairs for pairs, _ in counted(bench)] == [0, 0]
