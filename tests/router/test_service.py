"""The gRPC service in this process, over workers in memory: pipes, signs of life, descriptions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from moe_core.table import Table
from moe_router import streams
from moe_router.describe import Describer, Identity
from moe_router.engine import Engine, Limits
from moe_router.gates import GateArtifacts
from moe_router.links import Links
from moe_router.said import Said
from moe_router.service import RouterServicer
from moe_router.sessions import Start
from moe_router.stream import REQUESTS_PER_STREAM, Reply, RowsStream
from moe_router.tables import Tables
from moeops.v1 import router_pb2_grpc
from moeops.v1.router_pb2 import (
    DescribeMixtureRequest,
    DescribeRequest,
    DispatchRequest,
    RouteRequest,
    RowsResponse,
    SequenceRows,
)
from moeops.v1.types_pb2 import DTYPE_FLOAT32
from tests.fakes.links import FakeLinks, FakeWorker, compute
from tests.fakes.worker import until
from tests.support.dispatching import dispatch_request
from tests.support.tables import UID, expert, gate, table, to_object, version

A, B = version("a"), version("b")
TABLE = table([expert("a", A), expert("b", B)], [gate(["a", "b"])], hidden_size=4, dtype="Float32")


@dataclass
class Served:
    """A served router, and the worker that it has."""

    address: str
    stub: Any
    worker: FakeWorker
    servicer: RouterServicer
    held_back: list[Any]

    def hold_back(self) -> None:
        """Have the worker keep its answers to itself until they are given out."""
        self.worker.act = lambda worker, message, waiter: self.held_back.append((message, waiter))

    def give_out(self, at: int) -> None:
        compute(self.worker, *self.held_back.pop(at))


@asynccontextmanager
async def served(content: Table = TABLE) -> AsyncIterator[Served]:
    worker = FakeWorker({A.sha256: 1.0, B.sha256: 2.0})
    clock = asyncio.get_running_loop().time
    tables, links = Tables("tiny", clock), Links(clock)
    gates = GateArtifacts(None)
    tables.on_change(gates.want)
    tables.offer(Said.of(to_object(content)))
    engine = Engine(tables, FakeLinks({"w": worker}), gates, clock, Limits())
    identity = Identity("r-0", "n1", "inc", "tiny")
    counters, outcomes = engine.counters, engine.outcomes
    described = tables, links, counters, outcomes, gates, engine.scorings
    describer = Describer(identity, *described, clock, lambda: clock() + 1e9)
    servicer = RouterServicer(engine, tables, gates, describer)
    server = grpc.aio.server()
    router_pb2_grpc.add_RouterServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    beat = asyncio.create_task(servicer.streams.beat())
    address = f"127.0.0.1:{port}"
    async with grpc.aio.insecure_channel(address) as channel:
        yield Served(address, router_pb2_grpc.RouterStub(channel), worker, servicer, [])
    beat.cancel()
    await server.stop(None)
    gates.end()


def request(**options: Any) -> DispatchRequest:
    return dispatch_request(TABLE, [[0, 1]], **options)


async def answer(call: Any) -> RowsResponse:
    """Read the next answer that is no mere sign of life."""
    while True:
        response: Any = await call.read()
        assert response is not grpc.aio.EOF, "the stream has ended"
        if response.request_id:
            assert isinstance(response, RowsResponse)
            return response


async def test_answers_come_as_they_are_ready_and_signs_of_life_meanwhile() -> None:
    async with served() as it:
        it.hold_back()
        call = it.stub.Dispatch()
        first, second = request(), request()
        await call.write(first)
        await call.write(second)

        sign = await call.read()
        assert sign.request_id == 0
        assert not sign.HasField("failure")
        it.give_out(1)
        assert (await answer(call)).request_id == second.request_id
        it.give_out(0)
        assert (await answer(call)).request_id == first.request_id
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF


async def test_an_answer_tells_token_epoch_and_fate() -> None:
    async with served() as it:
        call = it.stub.Dispatch()
        await call.write(request())

        seen = await answer(call)

        assert seen.epoch == 1
        (outcome,) = seen.sequences
        assert outcome.start_token == Start(UID, 1).to_token("s")
        assert (outcome.degraded_ppm, outcome.degraded, list(outcome.rungs)) == (0, False, [])
        call.cancel()


async def test_what_is_under_way_is_answered_when_the_streams_are_ended() -> None:
    async with served() as it:
        it.hold_back()
        call = it.stub.Dispatch()
        under_way = request()
        await call.write(under_way)
        await until(lambda: bool(it.held_back), "the worker has it")

        it.servicer.streams.end()
        it.give_out(0)

        assert (await answer(call)).request_id == under_way.request_id
        assert await call.read() is grpc.aio.EOF
        assert (await call.code()) is grpc.StatusCode.OK


async def test_one_stream_too_many_is_refused_and_told_when_to_come_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streams, "MAX_STREAMS", 2)
    async with served() as it:
        calls = [it.stub.Dispatch() for _ in range(2)]
        for call in calls:
            await call.write(request())
            assert not (await answer(call)).HasField("failure")
        third = it.stub.Dispatch()
        with pytest.raises(grpc.aio.AioRpcError, match="2 streams are open here already") as seen:
            await third.read()
        assert seen.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert dict(await third.trailing_metadata()) == {"grpc-retry-pushback-ms": "1000"}
        calls[0].cancel()
        await until(lambda: len(it.servicer.streams) == 1, "there is room again")
        again = it.stub.Dispatch()
        await again.write(request())
        assert not (await answer(again)).HasField("failure")


async def test_a_client_that_goes_away_leaves_nothing_behind() -> None:
    async with served() as it:
        it.hold_back()
        call = it.stub.Dispatch()
        await call.write(request())
        await until(lambda: bool(it.held_back), "the worker has it")

        call.cancel()
        await until(lambda: not it.servicer.streams, "the stream is gone")
        it.give_out(0)

        other = it.stub.Dispatch()
        it.worker.act = compute
        await other.write(request())
        assert not (await answer(other)).HasField("failure")
        other.cancel()


async def test_a_client_that_reads_nothing_is_read_from_no_further() -> None:
    taken: list[int] = []

    async def serve(one: DispatchRequest) -> Reply:
        taken.append(one.request_id)
        return Reply(RowsResponse(request_id=one.request_id))

    async def requests() -> AsyncIterator[DispatchRequest]:
        for number in range(1, 10_000):
            yield DispatchRequest(request_id=number)

    stream: RowsStream[DispatchRequest] = RowsStream(serve)
    answers = stream.run(requests())
    await anext(answers)
    for _ in range(2000):
        await asyncio.sleep(0)

    assert len(taken) <= REQUESTS_PER_STREAM
    await anext(answers)
    await answers.aclose()


async def test_what_is_to_follow_an_answer_waits_until_it_is_written() -> None:
    followed: list[int] = []

    async def serve(one: DispatchRequest) -> Reply:
        number = one.request_id
        return Reply(RowsResponse(request_id=number), lambda: followed.append(number))

    async def requests() -> AsyncIterator[DispatchRequest]:
        for number in (1, 2):
            yield DispatchRequest(request_id=number)

    stream: RowsStream[DispatchRequest] = RowsStream(serve)
    seen = [(answer.request_id, list(followed)) async for answer in stream.run(requests())]

    assert seen == [(1, []), (2, [1])]
    assert followed == [1, 2]


async def test_route_says_that_its_gate_is_not_here_yet() -> None:
    async with served() as it:
        call = it.stub.Route()
        rows = RouteRequest(
            request_id=1,
            mixture="tiny",
            dtype=DTYPE_FLOAT32,
            hidden_size=4,
            sequences=[SequenceRows(session="s", rows=1)],
            hidden=bytes(16),
        )
        await call.write(rows)

        failure = (await answer(call)).failure

        assert failure.code == grpc.StatusCode.UNAVAILABLE.value[0]
        assert "gate 'gate' version 'gate-v1' is not here yet" in failure.message
        call.cancel()


async def test_the_mixture_is_described() -> None:
    async with served() as it:
        seen = await it.stub.DescribeMixture(DescribeMixtureRequest(mixture="tiny"))

        assert (seen.mixture, seen.table_uid, seen.epoch, seen.layers) == ("tiny", UID, 1, 1)
        assert seen.dtype == DTYPE_FLOAT32
        assert [(list(g.experts), g.top_k, g.sha256) for g in seen.gates] == [
            (["a", "b"], 2, TABLE.gates[0].stable.sha256)
        ]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await it.stub.DescribeMixture(DescribeMixtureRequest(mixture="big"))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        assert caught.value.details() == "mixture is 'big'; this router serves 'tiny'"


async def test_counters_are_described_for_all_artifacts_or_those_asked_for() -> None:
    async with served() as it:
        call = it.stub.Dispatch()
        for _ in range(3):
            await call.write(request())
            await answer(call)
        call.cancel()

        every = await it.stub.Describe(DescribeRequest())
        one = await it.stub.Describe(DescribeRequest(sha256=[B.sha256]))

        assert (every.router, every.node, every.incarnation) == ("r-0", "n1", "inc")
        assert (every.requests, every.failed_requests, every.epoch) == (3, 0, 1)
        assert {v.expert_id: v.rows for v in every.versions} == {"a": 3, "b": 3}
        (only,) = one.versions
        assert only.sha256 == B.sha256
        assert sum(only.latency_counts) == only.requests == 3
        assert len(only.latency_counts) == len(every.latency_bounds_us) + 1
        assert only.last_used_ms >= only.last_sent_ms > 1e12
