"""One router as a client sees it: its connections, its health, and how it comes back.

A router that is silent or down is asked again in the background until it answers; a stream that
has fallen silent is left open, so that a late answer still counts, and a new one is begun beside
it. Which router a request goes to is decided elsewhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import grpc

from moe_client.channel import Metadata
from moe_client.errors import Closed, MalformedAnswer
from moe_client.inside import InsidePipe, LocalRouter
from moe_client.pipe import Pipe
from moe_client.retry import ABSENT, Health
from moeops.v1.router_pb2 import (
    BeginRequest,
    BeginResponse,
    DescribeMixtureRequest,
    DescribeMixtureResponse,
    FetchGateRequest,
    GateChunk,
    ReportOutcomeRequest,
    ReportOutcomeResponse,
)

FIRST_PROBE_S = 0.25
LONGEST_PROBE_S = 4.0
PROBE_TIMEOUT_S = 1.0

_SERVICE = "/moeops.v1.Router/"

Connect = Callable[[str], grpc.aio.Channel]


class Router:
    """The streams to one address. Used from one event loop only."""

    def __init__(
        self,
        address: str,
        mixture: str,
        connect: Connect,
        metadata: Metadata = (),
        inside: LocalRouter | None = None,
    ) -> None:
        """`inside` is the router where it is one of this process."""
        self.address = address
        self._inside = inside
        self.health = Health.LIVE
        self._mixture = mixture
        self._connect = connect
        self._metadata = metadata
        self._pipes: dict[str, Pipe | InsidePipe] = {}
        self._left: set[Pipe | InsidePipe] = set()
        self._probe: asyncio.Task[None] | None = None
        self._closed = False

    def pipe(self, rpc: str) -> Pipe | InsidePipe:
        """Return the way for `Dispatch` or `Route`; a new one if the last is lost or silent.

        Raises Closed after `close`.
        """
        if self._closed:
            raise Closed("the client was closed")
        pipe = self._pipes.get(rpc)
        if pipe is not None and not pipe.lost and not pipe.silent:
            return pipe
        if pipe is not None and not pipe.lost:
            self._left = {left for left in self._left if not left.lost} | {pipe}
            pipe.retire()
        self._pipes[rpc] = pipe = self._open(rpc)
        return pipe

    def _open(self, rpc: str) -> Pipe | InsidePipe:
        if self._inside is not None:
            return InsidePipe(self._inside, self._metadata)
        channel = self._connect(self.address)
        return Pipe(self.address, channel, _SERVICE + rpc, self, self._metadata)

    async def describe(self, timeout_s: float) -> DescribeMixtureResponse:
        """Ask what the router serves. Raises grpc.aio.AioRpcError."""
        async with self._connect(self.address) as channel:
            ask = channel.unary_unary(
                _SERVICE + "DescribeMixture",
                request_serializer=DescribeMixtureRequest.SerializeToString,
                response_deserializer=DescribeMixtureResponse.FromString,
            )
            answer: DescribeMixtureResponse = await ask(
                DescribeMixtureRequest(mixture=self._mixture),
                timeout=timeout_s,
                metadata=self._metadata,
            )
            return answer

    async def begin(self, message: BeginRequest, timeout_s: float) -> BeginResponse:
        """Begin sessions. Raises grpc.aio.AioRpcError."""
        async with self._connect(self.address) as channel:
            ask = channel.unary_unary(
                _SERVICE + "Begin",
                request_serializer=BeginRequest.SerializeToString,
                response_deserializer=BeginResponse.FromString,
            )
            answer: BeginResponse = await ask(message, timeout=timeout_s, metadata=self._metadata)
            return answer

    async def fetch_gate(
        self, message: FetchGateRequest, most_bytes: int, timeout_s: float
    ) -> bytes:
        """Return what the router gives out as a gate; whether it is that is not looked at.

        Raises grpc.aio.AioRpcError, MalformedAnswer where it is larger than it says or than
        `most_bytes`.
        """
        content = bytearray()
        async with self._connect(self.address) as channel:
            ask = channel.unary_stream(
                _SERVICE + "FetchGate",
                request_serializer=FetchGateRequest.SerializeToString,
                response_deserializer=GateChunk.FromString,
            )
            async for chunk in ask(message, timeout=timeout_s, metadata=self._metadata):
                content += chunk.data
                if len(content) > min(chunk.size, most_bytes):
                    text = f"{chunk.size} bytes; at most {most_bytes} are taken"
                    raise MalformedAnswer(
                        f"router {self.address}: gate {message.sha256} has {text}"
                    )
        return bytes(content)

    async def report(
        self, message: ReportOutcomeRequest, timeout_s: float
    ) -> ReportOutcomeResponse:
        """Tell what answers were worth. Raises grpc.aio.AioRpcError."""
        async with self._connect(self.address) as channel:
            tell = channel.unary_unary(
                _SERVICE + "ReportOutcome",
                request_serializer=ReportOutcomeRequest.SerializeToString,
                response_deserializer=ReportOutcomeResponse.FromString,
            )
            response: ReportOutcomeResponse = await tell(
                message, timeout=timeout_s, metadata=self._metadata
            )
            return response

    def heard(self) -> None:
        """Something came from the router."""
        self.health = Health.LIVE

    def silent(self) -> None:
        """A stream with requests in flight has heard nothing for a while."""
        self._leave(Health.SILENT)

    def lost(self) -> None:
        """A stream has ended."""
        self._leave(Health.DOWN)

    async def close(self) -> None:
        """End everything; requests in flight are told that they are lost."""
        self._closed = True
        if self._probe is not None:
            self._probe.cancel()
            await asyncio.gather(self._probe, return_exceptions=True)
        for pipe in (*self._pipes.values(), *self._left):
            await pipe.close()
        self._pipes, self._left = {}, set()

    def _leave(self, health: Health) -> None:
        self.health = health
        if self._closed:
            return
        if self._probe is None or self._probe.done():
            self._probe = asyncio.get_running_loop().create_task(self._revive())

    async def _revive(self) -> None:
        delay_s = FIRST_PROBE_S
        while True:
            await asyncio.sleep(delay_s)
            if self.health is Health.LIVE:
                return
            try:
                await self.describe(PROBE_TIMEOUT_S)
            except grpc.aio.AioRpcError as error:
                if error.code() in ABSENT:
                    delay_s = min(delay_s * 2, LONGEST_PROBE_S)
                    continue
            self.health = Health.LIVE
            return
