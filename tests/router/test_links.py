"""Links over real sockets: silence, resets, late and repeated answers, draining, coming back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from moe_core.frames import PROTOCOL
from moe_router.ladder import Cause
from moe_router.link import Link, State
from moe_router.links import Links
from moe_router.message import Message
from moe_router.pulse import CROWD, LOST_TICKS, TICK_S
from moeops.v1.link_pb2 import Result
from tests.fakes.worker import ScriptedWorker, scripted_worker, until
from tests.support.messages import message_to

DIGEST = "ab" * 32


@dataclass
class Ear:
    """Notes what became of messages."""

    answers: list[bytes] = field(default_factory=list)
    failures: list[Cause] = field(default_factory=list)

    def answered(self, message: Message, result: Result, body: memoryview) -> None:
        self.answers.append(bytes(body))

    def failed(self, message: Message, cause: Cause) -> None:
        self.failures.append(cause)

    def late(self, message: Message) -> bool:
        return False


@asynccontextmanager
async def linked(*workers: ScriptedWorker) -> AsyncIterator[Links]:
    """Links to these workers, up and ticking."""
    links = Links(time.monotonic)
    links.set_addresses([worker.address for worker in workers])
    task = asyncio.create_task(links.watch())
    try:
        if workers[0].greets:
            await until(
                lambda: len(links.routable.live.get((DIGEST, 0), ())) == len(workers),
                "the workers are routable",
            )
        yield links
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def message(worker: ScriptedWorker, value: float = 1.0, timeout_s: float = 30.0) -> Message:
    now_s = time.monotonic()
    return message_to(worker.address, DIGEST, sent_s=now_s, timeout_s=timeout_s, value=value)


def only(links: Links) -> Link:
    (link,) = links.all
    return link


async def test_rows_go_out_as_they_are_and_answers_come_back_in_any_order() -> None:
    async with scripted_worker(DIGEST) as worker, linked(worker) as links:
        ears = [Ear(), Ear()]
        assert links.send(message(worker, 1.0), ears[0])
        assert links.send(message(worker, 2.0), ears[1])
        (first, first_body), (second, second_body) = [await worker.computes.get() for _ in "ab"]
        assert links.load[worker.address] == 4

        worker.answer(second, second_body)
        worker.answer(first, first_body)
        await until(lambda: all(ear.answers for ear in ears), "both are answered")

        assert first.attempt != second.attempt
        assert (first.hidden_size, first.layer, first.groups[0].rows) == (4, 0, 2)
        assert 0 < first.deadline_ms <= 30_000
        assert ears[0].answers == [np.full((2, 4), 1.0, np.float32).tobytes()]
        assert ears[1].answers == [np.full((2, 4), 2.0, np.float32).tobytes()]
        assert links.load[worker.address] == 0


@pytest.mark.parametrize(
    ("protocol", "spoken"),
    [
        pytest.param(1, 1, id="of before: without sums, and no Hello"),
        pytest.param(PROTOCOL, PROTOCOL, id="of the same version"),
        pytest.param(PROTOCOL + 1, PROTOCOL, id="of the version after"),
    ],
)
async def test_workers_of_neighbouring_versions_are_spoken_to_as_they_know(
    protocol: int, spoken: int
) -> None:
    async with scripted_worker(DIGEST, protocol=protocol) as worker, linked(worker) as links:
        for _ in range(2):  # on a connection made anew, too
            ear = Ear()
            links.send(message(worker), ear)
            compute, body = await worker.computes.get()
            worker.answer(compute, body)
            await until(lambda ear=ear: bool(ear.answers), "it is answered")  # type: ignore[misc]
            worker.reset()
            await until(lambda: not links.routable.live, "it is gone")
            await until(lambda: bool(links.routable.live), "it is there again")

    assert set(worker.heard) == {spoken}


async def test_a_repeated_answer_and_one_to_nothing_are_dropped() -> None:
    async with scripted_worker(DIGEST) as worker, linked(worker) as links:
        ear = Ear()
        links.send(message(worker), ear)
        compute, body = await worker.computes.get()

        worker.answer(compute, body)
        worker.answer(compute, body)
        compute.attempt = 999
        worker.answer(compute, body)
        await until(lambda: only(links).dropped == 2, "two answers are dropped")

        assert len(ear.answers) == 1
        assert only(links).state is State.LIVE


async def test_a_reset_fails_what_is_under_way_and_the_link_comes_back() -> None:
    async with scripted_worker(DIGEST) as worker, linked(worker) as links:
        ear = Ear()
        links.send(message(worker), ear)
        await worker.computes.get()

        worker.reset()
        await until(lambda: bool(ear.failures), "the attempt has failed")

        assert ear.failures == [Cause.BROKEN]
        await until(lambda: worker.connections == 2, "it connects again")
        await until(lambda: bool(links.routable.live), "it is routable again")
        assert links.load[worker.address] == 0


async def test_a_silent_worker_gets_nothing_and_its_late_answer_is_dropped() -> None:
    async with scripted_worker(DIGEST) as worker, linked(worker) as links:
        ear = Ear()
        links.send(message(worker), ear)
        compute, body = await worker.computes.get()

        await until(lambda: not links.routable.live, "it is silent")
        assert links.routable.doubted, "it is only doubted at first"
        assert ear.failures == []
        await until(lambda: bool(ear.failures), "silence fails the attempt")
        assert ear.failures == [Cause.BROKEN]
        assert only(links).state is State.SILENT
        assert not links.routable.doubted

        worker.answer(compute, body)
        await until(lambda: bool(links.routable.live), "it is used again when bytes come")
        assert only(links).dropped == 1
        assert ear.answers == []
        assert worker.connections == 1, "the link stayed open"


async def test_what_a_silent_worker_has_goes_to_a_replica_before_it_is_given_up() -> None:
    async with (
        scripted_worker(DIGEST) as worker,
        scripted_worker(DIGEST) as other,
        linked(worker, other) as links,
    ):
        ear = Ear()
        links.send(message(worker), ear)
        while not ear.failures:
            other.beat()
            await asyncio.sleep(0.01)

        silent = next(link for link in links.all if link.address == worker.address)
        assert ear.failures == [Cause.BROKEN]
        assert silent.offer.layers, "it is only doubted"
        assert links.routable.for_artifact(DIGEST, 0) == (other.address,)


async def test_where_all_are_silent_at_once_they_are_waited_for() -> None:
    async with AsyncExitStack() as stack:
        crowd = [await stack.enter_async_context(scripted_worker(DIGEST)) for _ in range(CROWD)]
        links = await stack.enter_async_context(linked(*crowd))
        ear = Ear()
        links.send(message(crowd[0]), ear)
        compute, body = await crowd[0].computes.get()
        await asyncio.sleep(2 * LOST_TICKS * TICK_S)

        assert all(link.doubted for link in links.all)
        assert {link.state for link in links.all} == {State.LIVE}
        assert len(links.routable.for_artifact(DIGEST, 0)) == CROWD
        assert ear.failures == []
        crowd[0].answer(compute, body)
        await until(lambda: bool(ear.answers), "it is answered after all")
        assert links.routable.for_artifact(DIGEST, 0) == (crowd[0].address,)


async def test_a_worker_with_heartbeats_is_not_silent_however_long_it_computes() -> None:
    async with scripted_worker(DIGEST) as worker, linked(worker) as links:
        ear = Ear()
        links.send(message(worker), ear)
        compute, body = await worker.computes.get()
        for _ in range(12):
            worker.beat(queued_rows=7)
            await asyncio.sleep(0.05)

        assert only(links).state is State.LIVE
        assert links.load[worker.address] == 7
        worker.answer(compute, body)
        await until(lambda: bool(ear.answers), "it is answered")
        assert ear.failures == []


async def test_a_router_that_stood_still_does_not_blame_its_worker() -> None:
    async with scripted_worker(DIGEST) as worker, linked(worker) as links:
        worker.beat()
        time.sleep(0.6)  # noqa: ASYNC251  (the loop itself stands still)
        worker.beat()
        await asyncio.sleep(0.05)

        assert only(links).state is State.LIVE


async def test_a_worker_whose_answers_do_not_fit_is_asked_last_for_a_while() -> None:
    async with (
        scripted_worker(DIGEST) as worker,
        scripted_worker(DIGEST) as other,
        linked(worker, other) as links,
    ):
        while links.routable.for_artifact(DIGEST, 0) != (other.address,):
            for one in (worker, other):
                ear = Ear()
                links.send(message(one), ear)
                compute, body = await one.computes.get()
                one.answer(compute, body[: len(body) // 2] if one is worker else body)
                other.beat()
                await until(lambda ear=ear: bool(ear.answers), "it is answered")  # type: ignore[misc]

        assert links.outliers == [worker.address]
        (out,) = (link for link in links.all if link.address == worker.address)
        assert out.state is State.LIVE, "nothing of it is seen in reports"
        assert set(out.offer.layers) == {DIGEST}
        assert links.routable.for_artifact(DIGEST, 0, {(other.address, DIGEST)}) == (
            worker.address,
        )


@pytest.mark.parametrize("explained", [False, True])
async def test_a_worker_counts_as_late_whose_answers_are_later_than_it_can_explain(
    *, explained: bool
) -> None:
    async with scripted_worker(DIGEST) as worker, linked(worker) as links:
        worker.beat(rows=10_000, busy_us=1_000_000)
        for _ in range(2):
            ear = Ear()
            links.send(message(worker), ear)
            compute, body = await worker.computes.get()
            await asyncio.sleep(0.1)
            worker.answer(compute, body, queue_us=3_600_000_000 if explained else 0)
            await until(lambda ear=ear: bool(ear.answers), "it is answered")  # type: ignore[misc]
        late = links.lateness[worker.address]
        if explained:
            assert late == 0
            return
        assert late >= 500, "two answers that were each late by a thousand rows, or more"
        worker.reset()
        await until(lambda: not links.routable.live, "it is gone")
        await until(lambda: bool(links.routable.live), "it is there again")
        worker.beat(rows=10_000, busy_us=1_000_000)
        await until(lambda: links.lateness[worker.address] == 0, "a new connection may be quicker")


async def test_an_attempt_whose_time_is_over_fails_and_the_link_stays() -> None:
    async with scripted_worker(DIGEST) as worker, linked(worker) as links:
        ear = Ear()
        links.send(message(worker, timeout_s=0.03), ear)
        await until(lambda: bool(ear.failures), "the attempt is given up")

        assert ear.failures == [Cause.DEADLINE]
        assert worker.connections == 1


async def test_a_draining_worker_finishes_what_it_has_and_gets_nothing_new() -> None:
    async with scripted_worker(DIGEST) as worker, linked(worker) as links:
        ear = Ear()
        links.send(message(worker), ear)
        compute, body = await worker.computes.get()

        worker.greet(draining=True)
        await until(lambda: not links.routable.live, "it is not routable")
        assert only(links).state is State.DRAINING
        worker.answer(compute, body)
        await until(lambda: bool(ear.answers), "what it had is answered")


async def test_bytes_that_are_no_frame_end_the_connection_and_a_new_one_is_made() -> None:
    async with scripted_worker(DIGEST) as worker, linked(worker) as links:
        ear = Ear()
        links.send(message(worker), ear)
        await worker.computes.get()

        worker.send_garbage()
        await until(lambda: worker.connections == 2, "it connects again")

        assert ear.failures == [Cause.BROKEN]


async def test_a_frame_cut_in_the_middle_fails_its_attempt_and_no_half_answer_is_used() -> None:
    async with scripted_worker(DIGEST) as worker, linked(worker) as links:
        ear = Ear()
        links.send(message(worker), ear)
        compute, body = await worker.computes.get()

        worker.answer(compute, body, cut_bytes=5)
        await asyncio.sleep(0.05)
        worker.reset()
        await until(lambda: bool(ear.failures), "the attempt has failed")

        assert ear.answers == []
        assert ear.failures == [Cause.BROKEN]


async def test_workers_on_the_same_host_are_reached_over_unix_sockets(tmp_path: Path) -> None:
    worker = ScriptedWorker([DIGEST], address=f"unix:{tmp_path / 'w.sock'}")
    server = await asyncio.start_unix_server(worker.accept, tmp_path / "w.sock")
    async with linked(worker) as links:
        ear = Ear()
        links.send(message(worker), ear)
        compute, body = await worker.computes.get()
        worker.answer(compute, body)
        await until(lambda: bool(ear.answers), "it is answered")
        assert ear.answers == [body]
    server.close()


async def test_a_worker_no_longer_listed_is_used_while_it_lives_and_then_forgotten() -> None:
    async with scripted_worker(DIGEST) as worker, linked(worker) as links:
        links.set_addresses([])
        assert links.routable.live

        worker.reset()
        await until(lambda: not links.all, "it is forgotten")
        assert not links.send(message(worker), Ear())


async def test_a_worker_that_never_says_what_it_holds_is_not_routable_and_left_in_the_end() -> None:
    async with scripted_worker(DIGEST, greets=False) as worker, linked(worker) as links:
        await until(lambda: worker.connections == 1, "it is connected")
        while worker.connections == 1:
            assert only(links).state is State.CONNECTING
            assert not links.routable.live
            worker.beat()
            await asyncio.sleep(0.02)


async def test_nobody_there_is_tried_again_until_somebody_is() -> None:
    async with scripted_worker(DIGEST) as gone:
        address = gone.address
    links = Links(time.monotonic)
    links.set_addresses([address])
    task = asyncio.create_task(links.watch())
    await asyncio.sleep(0.1)
    assert not links.routable.live

    late = ScriptedWorker([DIGEST])
    host, _, port = address.rpartition(":")
    server = await asyncio.start_server(late.accept, host, int(port))
    await until(lambda: bool(links.routable.live), "it is found")

    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    server.close()
