"""A request of many rows is served in slices: the same answer, and whoever is small passes."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moe_core.table import Rung
from moe_router import dispatcher, slices
from moe_router.engine import Answer
from moe_router.refusal import Code
from moeops.v1.router_pb2 import SequenceRows
from tests.fakes.links import compute, reset, run_late
from tests.router.bench import A2, A, B, Bench, C, canary, mixture, taken_back, values, worker

sizes = st.lists(st.integers(1, 9), min_size=1, max_size=5)


@pytest.fixture(autouse=True)
def three_rows_a_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "SLICE_ROWS", 3)


def rungs_of(answer: Answer) -> list[Counter[tuple[Rung, str]]]:
    found: list[Counter[tuple[Rung, str]]] = [Counter() for _ in answer.fates]
    for fate, counts in zip(answer.fates, found, strict=True):
        for rung, expert_id, rows in fate.outcome.rungs:
            counts[rung, expert_id] += rows
    return found


def trail(answer: Answer) -> set[tuple[str, int]]:
    """Return who answered which pair."""
    assert answer.trail is not None
    return {(p.ask.sha256, int(pair)) for p in answer.trail.parts for pair in p.pairs}


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes, st.integers(0, 2**32 - 1), st.booleans())
async def test_the_answer_is_that_of_the_whole(rows: list[int], seed: int, broken: bool) -> None:
    """Whatever sequences it has, on a canary, also where a ladder is climbed."""
    random, count = np.random.default_rng(seed), sum(rows)
    experts = random.permuted(np.tile(np.arange(3), (count, 1)), axis=1)[:, :2]
    asked: dict[str, Any] = {
        "hidden": random.standard_normal((count, 4)),
        "weights": random.random((count, 2)).astype(np.float32),
        "sessions": [SequenceRows(session=f"s{n}", rows=size) for n, size in enumerate(rows)],
    }
    answers = []
    for size in (count, 3):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(slices, "SLICE_ROWS", size)
            workers = {"w1": worker(A, B), "w2": worker(A2, act=reset if broken else compute)}
            bench = Bench(mixture(canary(50)), workers)
            answers.append(await bench.dispatch(experts.tolist(), **asked))
            assert not bench.engine.rows_under_way
    whole, sliced = answers
    assert sliced.hidden.tobytes() == whole.hidden.tobytes()
    assert rungs_of(sliced) == rungs_of(whole)
    for one, other in zip(sliced.fates, whole.fates, strict=True):
        assert (one.token, one.degraded) == (other.token, other.degraded)
        assert one.outcome.mass == pytest.approx(other.outcome.mass)
        assert one.outcome.lost == pytest.approx(other.outcome.lost)
    if whole.trail is not None and not broken:
        assert trail(sliced) == trail(whole)


async def test_slices_are_cut_where_rows_are_too_many() -> None:
    bench = Bench(mixture(), {"w": worker(A, B, C)})

    assert values(await bench.dispatch([[0, 1]] * 3)) == [1.5] * 3
    assert bench.links.sent == 1

    assert values(await bench.dispatch([[0, 1]] * 7)) == [1.5] * 7
    assert bench.links.sent == 1 + 3
    assert bench.tally(A).rows == 3 + 7


async def test_a_small_one_passes_a_giant() -> None:
    bench = Bench(mixture(), {"w": worker(A, B, C)})
    giant = asyncio.create_task(bench.dispatch([[0, 1]] * 300))
    await bench.settle()
    begun = bench.links.sent

    await bench.dispatch([[0, 1]])

    assert not giant.done()
    assert begun > 0
    assert bench.links.sent < begun + 1 + 2 * dispatcher.SLICES_AT_ONCE, "of a hundred slices"
    assert values(await giant) == [1.5] * 300


async def test_only_so_many_slices_are_under_way() -> None:
    held: list[tuple[Any, ...]] = []
    slow = worker(A, B, C, act=lambda *of: held.append(of))
    bench = Bench(mixture(), {"w": slow})
    giant = asyncio.create_task(bench.dispatch([[0, 1]] * 60))
    for _ in range(50):
        await asyncio.sleep(0)
    assert bench.links.sent == dispatcher.SLICES_AT_ONCE

    compute(*held.pop())
    for _ in range(50):
        await asyncio.sleep(0)

    assert bench.links.sent == dispatcher.SLICES_AT_ONCE + 1, "each that is answered has a next one"
    slow.act = compute
    for of in held:
        compute(*of)
    assert values(await giant) == [1.5] * 60


async def test_what_is_revoked_while_later_slices_are_under_way_is_not_in_the_answer() -> None:
    """Only its rows are asked for anew: those of others are counted once."""
    bench = Bench(mixture(canary()), {"w1": worker(A, B, C), "w2": worker(A2)})

    def revoke() -> None:
        if bench.links.sent > 20:
            bench.offer(taken_back(2))

    bench.links.before = revoke
    answer = await bench.dispatch([[0, 1]] * 60)

    assert bench.tally(A2).rows > 0, "nothing was revoked that had been answered"
    assert values(answer) == [1.5] * 60
    assert rungs_of(answer) == [Counter({(Rung.STABLE, "a"): 60})]
    assert answer.trail is None or A2.sha256 not in {sha256 for sha256, _ in trail(answer)}
    assert (bench.tally(A).rows, bench.tally(B).rows) == (60, 60)


async def test_the_first_slice_that_fails_ends_all() -> None:
    bench = Bench(mixture(ladder=()), {"w": worker(A, B, act=run_late)})

    refused = await bench.refused([[0, 1]] * 300)

    assert refused.code is Code.DEADLINE_EXCEEDED
    await bench.settle()
    assert bench.links.sent <= 2 * dispatcher.SLICES_AT_ONCE
    assert not bench.engine.rows_under_way
    assert bench.engine.counters.failed_requests == 1
