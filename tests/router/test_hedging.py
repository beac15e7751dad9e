"""A second worker is asked where one takes unusually long: when, how often, and who counts."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack

import pytest

from moe_core.table import Rung
from moe_router.flight import Waiter
from moe_router.hedge import MIN_ANSWERS, MOST_HEDGES, SHORTEST_S, HedgeBudget, Pace
from moe_router.ladder import Cause
from moe_router.links import Links
from moe_router.message import Message
from moeops.v1.link_pb2 import Result
from tests.fakes.links import FakeWorker, compute
from tests.fakes.worker import ScriptedWorker, scripted_worker, until
from tests.router.bench import A, B, Bench, C, mixture, rungs, values, worker
from tests.support.messages import message_to

DIGEST = "ab" * 32


def paced(times_s: list[float], rows: int = 4) -> Pace:
    pace = Pace()
    for took_s in times_s:
        pace.took(rows, took_s)
    return pace


@pytest.mark.parametrize(
    ("times_s", "expected"),
    [
        pytest.param([0.1] * (MIN_ANSWERS - 16), None, id="too few to tell"),
        pytest.param([0.1] * MIN_ANSWERS, 0.128, id="the bound above the quantile"),
        pytest.param([0.1] * 630 + [9.0] * 10, 0.128, id="a tail of under 2 % is no measure"),
        pytest.param([0.1] * 60 + [0.2] * 4, 0.256, id="a thicker one is"),
        pytest.param([0.001] * MIN_ANSWERS, SHORTEST_S, id="never before a tick"),
        pytest.param([9.0] * MIN_ANSWERS, float("inf"), id="beyond all bounds: never"),
        pytest.param([0.5] * 1024 + [0.1] * 1024, 0.128, id="what is old is forgotten"),
    ],
)
def test_how_long_a_worker_is_waited_for(times_s: list[float], expected: float | None) -> None:
    assert paced(times_s).patience_s(4) == expected


def test_large_messages_are_measured_by_large_ones() -> None:
    pace = paced([0.05] * MIN_ANSWERS, rows=4)
    for _ in range(MIN_ANSWERS):
        pace.took(512, 1.5)

    assert (pace.patience_s(5), pace.patience_s(700), pace.patience_s(64)) == (0.064, 2.048, None)


def test_hedges_are_a_share_of_the_messages_and_a_few_at_once() -> None:
    budget, hedges = HedgeBudget(), []
    for _ in range(1000):
        budget.earn()
        if budget.allows:
            budget.spend()
            hedges.append(1)

    assert len(hedges) == 1000 * 0.05 + MOST_HEDGES - 1


class Slow:
    """Answers when told to; says at once that it takes long."""

    def __init__(self) -> None:
        self.held: list[tuple[FakeWorker, Message, Waiter]] = []

    def __call__(self, worker: FakeWorker, message: Message, waiter: Waiter) -> None:
        self.held.append((worker, message, waiter))
        waiter.late(message)

    def answer(self) -> None:
        for held in self.held:
            compute(*held)


async def test_the_first_answer_counts_and_the_late_one_is_dropped() -> None:
    slow = Slow()
    bench = Bench(mixture(), {"w1": worker(A, B, act=slow), "w2": worker(A, B)})

    answer = await bench.dispatch([[0, 1]])
    slow.answer()

    assert values(answer) == [1.5]
    assert rungs(answer) == [(Rung.REPLICA, "a", 1), (Rung.REPLICA, "b", 1)]
    assert not answer.fates[0].degraded
    assert (bench.tally(A).rows, bench.tally(A).requests) == (1, 1)
    assert not bench.tally(A).errors


async def test_a_hedge_that_fails_leaves_the_first_attempt_its_chance() -> None:
    slow, broken = Slow(), []

    def fail(worker: FakeWorker, message: Message, waiter: Waiter) -> None:
        waiter.failed(message, Cause.BROKEN)
        broken.append(message)
        slow.answer()

    bench = Bench(mixture(), {"w1": worker(A, B, act=slow), "w2": worker(A, B, act=fail)})

    answer = await bench.dispatch([[0, 1]])

    assert len(broken) == 1
    assert values(answer) == [1.5]
    assert rungs(answer) == [], "the first worker answered after all"


async def test_where_both_fail_the_ladder_goes_on() -> None:
    slow = Slow()

    def fail(worker: FakeWorker, message: Message, waiter: Waiter) -> None:
        waiter.failed(message, Cause.BROKEN)
        for _, first, asker in slow.held:
            asker.failed(first, Cause.DEADLINE)

    bench = Bench(
        mixture(),
        {"w1": worker(A, act=slow), "w2": worker(A, act=fail), "w3": worker(B, C)},
    )

    answer = await bench.dispatch([[0, 1]])

    assert values(answer) == [2.0]
    assert rungs(answer) == [(Rung.RENORMALISE, "a", 1)]


async def test_without_a_replica_nothing_is_hedged() -> None:
    slow = Slow()
    bench = Bench(mixture(), {"w1": worker(A, B, act=slow), "w2": worker(C)})

    asked = asyncio.ensure_future(bench.dispatch([[0, 1]]))
    await bench.settle()
    assert bench.links.sent == 1
    slow.answer()

    assert values(await asked) == [1.5]


class Ear:
    def __init__(self) -> None:
        self.heard: list[str] = []

    def answered(self, message: Message, result: Result, body: memoryview) -> None:
        self.heard.append("answered")

    def failed(self, message: Message, cause: Cause) -> None:
        self.heard.append(cause)

    def late(self, message: Message) -> bool:
        self.heard.append("late")
        return True


async def test_links_say_what_takes_longer_than_a_worker_nearly_always_does() -> None:
    async with AsyncExitStack() as stack:
        first, other = [await stack.enter_async_context(scripted_worker(DIGEST)) for _ in range(2)]
        links = Links(time.monotonic)
        links.set_addresses([first.address, other.address])
        watching = asyncio.create_task(links.watch())
        await until(lambda: len(links.routable.live.get((DIGEST, 0), ())) == 2, "both are live")

        for _ in range(MIN_ANSWERS):
            await ask_and_answer(links, first)
        ear = Ear()
        links.send(message_to(first.address, DIGEST, sent_s=time.monotonic()), ear)
        compute_, body = await first.computes.get()
        while not ear.heard:
            first.beat()
            other.beat()
            await asyncio.sleep(0.005)
        first.answer(compute_, body)
        await until(lambda: "answered" in ear.heard, "it is answered")

        assert ear.heard[0] == "late"
        assert links.hedged == ear.heard.count("late") >= 1
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def ask_and_answer(links: Links, worker: ScriptedWorker) -> None:
    ear = Ear()
    links.send(message_to(worker.address, DIGEST, sent_s=time.monotonic()), ear)
    compute_, body = await worker.computes.get()
    worker.answer(compute_, body)
    await until(lambda: "answered" in ear.heard, "it is answered")
