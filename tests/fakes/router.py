"""A router that does what a test tells it: a real gRPC server in this process.

Each request takes the next action of the script; when there is none left, the usual one.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import grpc

from moeops.v1 import router_pb2, router_pb2_grpc, types_pb2

Request = router_pb2.DispatchRequest | router_pb2.RouteRequest
Response = router_pb2.RowsResponse
HEARTBEAT_S = 0.05


@dataclass
class Exchange:
    """One request, and the means to answer it."""

    request: Request
    outbox: asyncio.Queue[Response | None]

    def echo(self, *, token: bytes = b"1:uid:7") -> Response:
        """Return the answer that gives the rows back as they came."""
        outcomes = [router_pb2.SequenceOutcome(start_token=token) for _ in self.request.sequences]
        return Response(
            request_id=self.request.request_id,
            hidden=self.request.hidden,
            sequences=outcomes,
            epoch=7,
        )

    def answer(self, response: Response) -> None:
        self.outbox.put_nowait(response)

    def end_stream(self) -> None:
        self.outbox.put_nowait(None)


Action = Callable[[Exchange], Awaitable[None]]


async def echo(exchange: Exchange) -> None:
    """Answer at once."""
    exchange.answer(exchange.echo())


async def say_nothing(exchange: Exchange) -> None:
    """Never answer; whether there are heartbeats is the router's matter."""


async def break_stream(exchange: Exchange) -> None:
    """End the stream with this request unanswered."""
    exchange.end_stream()


def answer_after(event: asyncio.Event) -> Action:
    """Answer when the test says so."""

    async def act(exchange: Exchange) -> None:
        await event.wait()
        exchange.answer(exchange.echo())

    return act


def refuse(code: grpc.StatusCode, message: str, retry_after_ms: int = 0) -> Action:
    """Answer with a failure."""

    async def act(exchange: Exchange) -> None:
        number = code.value[0]
        failure = types_pb2.Failure(code=number, message=message, retry_after_ms=retry_after_ms)
        request_id = exchange.request.request_id
        exchange.answer(Response(request_id=request_id, failure=failure, epoch=7))

    return act


def spoil(change: Callable[[Response], None]) -> Action:
    """Answer with an echo that was changed."""

    async def act(exchange: Exchange) -> None:
        response = exchange.echo()
        change(response)
        exchange.answer(response)

    return act


def _nothing() -> router_pb2.DescribeMixtureResponse:
    dtype = types_pb2.DTYPE_BFLOAT16
    return router_pb2.DescribeMixtureResponse(mixture="tiny", dtype=dtype, hidden_size=8)


@dataclass
class FakeRouter(router_pb2_grpc.RouterServicer):
    """Serves until it is stopped. `requests` are those that came, in order."""

    description: router_pb2.DescribeMixtureResponse = field(default_factory=_nothing)
    script: list[Action] = field(default_factory=list)
    otherwise: Action = echo
    heartbeats: bool = True
    requests: list[Request] = field(default_factory=list)
    reports: list[router_pb2.ReportOutcomeRequest] = field(default_factory=list)
    gates: dict[str, bytes] = field(default_factory=dict)
    # Which artifact of a gate a session is on, given that of the description.
    gate_seen: Callable[[str, str], str] = lambda session, stable: stable
    refuses_reports: grpc.StatusCode | None = None
    streams: int = 0
    address: str = ""

    async def start(self, address: str = "127.0.0.1:0") -> Self:
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        router_pb2_grpc.add_RouterServicer_to_server(self, self._server)
        port = self._server.add_insecure_port(address)
        self.address = f"{address.rpartition(':')[0]}:{port}" if port > 1 else address
        await self._server.start()
        return self

    async def stop(self) -> None:
        await self._server.stop(0)

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def DescribeMixture(  # noqa: N802
        self, request: router_pb2.DescribeMixtureRequest, context: Any
    ) -> router_pb2.DescribeMixtureResponse:
        return self.description

    async def Dispatch(  # noqa: N802
        self, requests: AsyncIterator[Request], context: Any
    ) -> AsyncIterator[Response]:
        async for response in self._serve(requests):
            yield response

    async def Route(  # noqa: N802
        self, requests: AsyncIterator[Request], context: Any
    ) -> AsyncIterator[Response]:
        async for response in self._serve(requests):
            yield response

    async def Begin(  # noqa: N802
        self, request: router_pb2.BeginRequest, context: Any
    ) -> router_pb2.BeginResponse:
        sessions = [
            router_pb2.SessionGates(
                start_token=one.start_token or b"1:uid:7",
                gates=[
                    router_pb2.GatePin(
                        name=gate.name, sha256=self.gate_seen(one.session, gate.sha256)
                    )
                    for gate in self.description.gates
                ],
            )
            for one in request.sessions
        ]
        return router_pb2.BeginResponse(table_uid="uid", epoch=7, sessions=sessions)

    async def FetchGate(  # noqa: N802
        self, request: router_pb2.FetchGateRequest, context: Any
    ) -> AsyncIterator[router_pb2.GateChunk]:
        content = self.gates.get(request.sha256)
        if content is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such gate")
            return
        for at in range(0, len(content), 1 << 18):
            yield router_pb2.GateChunk(data=content[at : at + (1 << 18)], size=len(content))

    async def ReportOutcome(  # noqa: N802
        self, request: router_pb2.ReportOutcomeRequest, context: Any
    ) -> router_pb2.ReportOutcomeResponse:
        if self.refuses_reports is not None:
            await context.abort(self.refuses_reports, "not now")
        self.reports.append(request)
        return router_pb2.ReportOutcomeResponse(accepted=len(request.outcomes))

    async def Describe(  # noqa: N802
        self, request: router_pb2.DescribeRequest, context: Any
    ) -> router_pb2.DescribeResponse:
        return router_pb2.DescribeResponse(router="fake", epoch=7, requests=len(self.requests))

    async def _serve(self, requests: AsyncIterator[Request]) -> AsyncIterator[Response]:
        self.streams += 1
        outbox: asyncio.Queue[Response | None] = asyncio.Queue()
        tasks = {asyncio.create_task(self._read(requests, outbox))}
        if self.heartbeats:
            tasks.add(asyncio.create_task(_beat(outbox)))
        try:
            while (response := await outbox.get()) is not None:
                yield response
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(
        self, requests: AsyncIterator[Request], outbox: asyncio.Queue[Response | None]
    ) -> None:
        async with asyncio.TaskGroup() as group:
            async for request in requests:
                self.requests.append(request)
                action = self.script.pop(0) if self.script else self.otherwise
                group.create_task(action(Exchange(request, outbox)))  # type: ignore[arg-type]
        outbox.put_nowait(None)


async def _beat(outbox: asyncio.Queue[Response | None]) -> None:
    while True:
        await asyncio.sleep(HEARTBEAT_S)
        outbox.put_nowait(Response())


@contextmanager
def in_a_thread(router: FakeRouter) -> Iterator[FakeRouter]:
    """Serve from another thread, for tests that block."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(router.start(), loop).result()
        yield router
        asyncio.run_coroutine_threadsafe(router.stop(), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
