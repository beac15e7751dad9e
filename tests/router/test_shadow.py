"""Shadow rows: what is copied, where and when, and that no answer ever depends on them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from moe_core.rollout import Version
from moe_core.table import Table
from moe_router.counters import ShadowTally
from moe_router.engine import Answer
from moe_router.flight import Waiter
from moe_router.message import Message
from moe_router.shadow import COPIES_UNDER_WAY, ROWS_PER_COPY, due
from moeops.v1.router_pb2 import ForcedVersion, SequenceRows
from tests.fakes.links import FakeWorker, compute, garble, refuse, reset
from tests.router.bench import A2, A, B, Bench, C, canary, mixture, taken_back, values, worker


def shadowed(percent: int = 100, weight: int = 0) -> Table:
    row = canary(weight)
    assert row.rollout is not None
    return mixture(replace(row, rollout=replace(row.rollout, shadow_percent=percent)))


def house(content: Table, **options: Any) -> Bench:
    return Bench(content, {"old": worker(A, B, C), "new": worker(A2, **options)})


def tally(bench: Bench, of: Version = A2) -> ShadowTally:
    found = [t.shadow for _, t in bench.engine.counters.versions([of.sha256])]
    return found[0] if found else ShadowTally()


async def ask(bench: Bench, experts: list[list[int]], **options: Any) -> Answer:
    """Ask, have the answer go out, and let the copies be answered."""
    answer = await bench.dispatch(experts, **options)
    bench.engine.follow(answer)
    await bench.settle()
    return answer


async def test_a_copy_goes_to_the_candidate_after_the_answer_and_is_counted() -> None:
    bench = house(shadowed())

    answer = await bench.dispatch([[0, 1], [1, 2], [2, 0]])

    assert bench.links.workers["new"].seen == []
    bench.engine.follow(answer)
    await bench.settle()
    assert bench.links.workers["new"].seen == [(A2.sha256, 2)]
    assert tally(bench) == ShadowTally(requests=1, rows=2, norm_sum=2.0)
    candidate = bench.tally(A2)
    assert (candidate.requests, candidate.rows, candidate.last_sent_s) == (0, 0, None)
    assert bench.tally(A).shadow == ShadowTally()


async def test_answers_and_the_order_of_sends_are_as_without() -> None:
    experts = [[0, 1], [1, 2], [2, 0]]
    seen = []
    for percent in (0, 100):
        bench = house(shadowed(percent))
        answers = [values(await bench.dispatch(experts)) for _ in range(3)]
        seen.append((answers, bench.links.sent, bench.links.workers["old"].seen))

    assert seen[0] == seen[1]


async def test_an_answer_that_never_went_out_is_not_copied() -> None:
    bench = house(shadowed())
    await bench.dispatch([[0, 1]])
    await bench.settle()

    assert tally(bench) == ShadowTally()


async def test_a_candidate_that_answers_nonsense_is_counted_and_hurts_nobody() -> None:
    bench = Bench(
        shadowed(), {"old": worker(A, B, C), "new": FakeWorker({A2.sha256: float("nan")})}
    )

    answer = await ask(bench, [[0, 1], [0, 2]])

    assert values(answer) == [1.5, 2.5]
    assert tally(bench) == ShadowTally(requests=1, rows=2, nonfinite_rows=2, norm_sum=2.0)
    assert not bench.tally(A2).errors


@pytest.mark.parametrize(
    "deed",
    [
        pytest.param(reset, id="the link breaks"),
        pytest.param(refuse(8), id="the worker is full"),
        pytest.param(garble, id="bytes that do not fit"),
    ],
)
async def test_a_copy_that_is_not_answered_is_an_error_of_the_shadow_alone(deed: Any) -> None:
    bench = house(shadowed(), act=deed)

    answer = await ask(bench, [[0, 1]])

    assert values(answer) == [1.5]
    assert tally(bench) == ShadowTally(requests=1, errors=1)
    assert not bench.tally(A2).errors


async def test_a_worker_with_rows_waiting_gets_no_copies() -> None:
    bench = house(shadowed())
    bench.links.load = {"new": 1}
    await ask(bench, [[0, 1]])
    assert tally(bench).requests == 0

    bench.links.load = {"new": 0}
    await ask(bench, [[0, 1]])
    assert tally(bench).requests == 1


async def test_only_so_many_copies_are_under_way() -> None:
    held: list[tuple[Message, Waiter]] = []
    bench = house(shadowed(), act=lambda _, message, waiter: held.append((message, waiter)))
    for _ in range(COPIES_UNDER_WAY + 3):
        await ask(bench, [[0, 1]])
    assert len(held) == COPIES_UNDER_WAY

    compute(bench.links.workers["new"], *held.pop())
    await ask(bench, [[0, 1]])

    assert len(held) == COPIES_UNDER_WAY
    assert tally(bench).requests == 1


async def test_of_a_large_request_a_part_is_copied() -> None:
    bench = house(shadowed())
    await ask(bench, [[0, 1]] * (3 * ROWS_PER_COPY))

    assert tally(bench).rows == ROWS_PER_COPY


async def test_what_stable_did_not_answer_as_asked_is_not_copied() -> None:
    bench = house(shadowed(weight=100))
    await ask(bench, [[0, 1]])
    assert bench.tally(A2).rows == 1
    forced = [ForcedVersion(expert_id="a", sha256=A.sha256)]
    await ask(bench, [[0, 1]], sessions=[SequenceRows(session="s", rows=1, forced=forced)])
    assert bench.tally(A).rows == 1
    await ask(bench, [[1, 2]])

    assert tally(bench) == ShadowTally()


async def test_a_version_taken_back_meanwhile_gets_no_copy() -> None:
    bench = house(shadowed())
    answer = await bench.dispatch([[0, 1]])
    bench.offer(taken_back(2))

    bench.engine.follow(answer)
    await bench.settle()

    assert bench.links.workers["new"].seen == []


@pytest.mark.parametrize("percent", [0, 1, 5, 50, 99, 100])
@pytest.mark.parametrize("every", [1, 2, 3, 16])
def test_the_share_is_kept_also_of_every_nth_request(percent: int, every: int) -> None:
    taken = sum(due(turn * every, percent) for turn in range(1, 10_001))

    assert abs(taken - 100 * percent) <= 30
    assert taken == 100 * percent or percent not in (0, 100)
