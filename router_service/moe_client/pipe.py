"""One bidirectional stream to one router: many requests in flight, answers in any order.

It writes, reads, and notices that the router has become silent: nothing heard for four ticks
while something is in flight, by its own ticks, so that a starved client does not blame the
router. It decides nothing about where a request goes instead; it only tells.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import grpc

from moe_client.channel import Metadata
from moe_client.handshake import explained
from moe_client.messages import Make
from moe_client.retry import Lost, Silent
from moeops.v1.router_pb2 import RowsResponse

TICK_S = 0.05
SILENT_TICKS = 4
"""0.2 s: a router that computes says so every 50 ms."""


@dataclass(frozen=True, slots=True)
class Answered:
    """The router's answer, rows or a failure."""

    address: str
    response: RowsResponse


Event = Answered | Lost | Silent
Tell = Callable[[Event], None]


class Watcher(Protocol):
    """Hears how a stream fares, whoever's request it is."""

    def heard(self) -> None: ...

    def silent(self) -> None: ...

    def lost(self) -> None: ...


class Pipe:
    """A stream over a channel of its own. Used from one event loop only."""

    def __init__(
        self,
        address: str,
        channel: grpc.aio.Channel,
        method: str,
        watcher: Watcher,
        metadata: Metadata = (),
    ) -> None:
        self.address = address
        self.silent = False
        self.lost = False
        self._watcher = watcher
        self._channel = channel
        self._pending: dict[int, Tell] = {}
        self._last_id = 0
        self._quiet_ticks = 0
        self._timer: asyncio.TimerHandle | None = None
        self._retired = False
        self._outbox: asyncio.Queue[tuple[int, bytes]] = asyncio.Queue()
        stub: grpc.aio.StreamStreamMultiCallable[bytes, RowsResponse] = channel.stream_stream(
            method, response_deserializer=RowsResponse.FromString
        )
        self._call = stub(metadata=metadata)
        self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._write())]

    def send(self, make: Make, deadline_ms: int, tell: Tell) -> int:
        """Queue one request and return its id; what happens to it is told, until `forget`."""
        self._last_id += 1
        request_id = self._last_id
        self._pending[request_id] = tell
        message = make(request_id, deadline_ms)
        self._outbox.put_nowait((request_id, message.SerializeToString()))
        if self._timer is None:
            self._quiet_ticks = 0
            self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)
        return request_id

    def forget(self, request_id: int) -> None:
        """Drop whatever still comes for this request."""
        self._pending.pop(request_id, None)
        self._end_if_idle()

    def retire(self) -> None:
        """Take no new request; end once nothing is in flight."""
        self._retired = True
        self._end_if_idle()

    async def close(self) -> None:
        """End the stream and the connection; what is in flight is told that it is lost."""
        self._lose(grpc.StatusCode.CANCELLED, "the client closed the connection")
        self._call.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._channel.close()

    def _end_if_idle(self) -> None:
        if self._retired and not self._pending and not self.lost:
            self._call.cancel()

    async def _write(self) -> None:
        try:
            while True:
                request_id, message = await self._outbox.get()
                if request_id in self._pending:
                    await self._call.write(message)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return  # the reader hears of it too, with the reason

    async def _read(self) -> None:
        code, message = grpc.StatusCode.UNAVAILABLE, "the router ended the stream"
        try:
            async for response in self._call:
                self._hear(response)
        except grpc.aio.AioRpcError as error:
            code, message = error.code(), explained(error.details())
        except asyncio.CancelledError:
            code, message = grpc.StatusCode.CANCELLED, "the stream was cancelled"
        self._lose(code, message)
        self._tasks[1].cancel()
        await self._channel.close()

    def _hear(self, response: RowsResponse) -> None:
        self._quiet_ticks = 0
        self.silent = False
        self._watcher.heard()
        tell = self._pending.pop(response.request_id, None)
        if tell is not None:
            tell(Answered(self.address, response))
            self._end_if_idle()

    def _tick(self) -> None:
        self._timer = None
        if not self._pending:
            return
        self._quiet_ticks += 1
        if self._quiet_ticks == SILENT_TICKS:
            self.silent = True
            self._watcher.silent()
            for tell in list(self._pending.values()):
                tell(Silent(self.address))
        self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def _lose(self, code: grpc.StatusCode, message: str) -> None:
        if self.lost:
            return
        self.lost = True
        if self._timer is not None:
            self._timer.cancel()
        pending, self._pending = self._pending, {}
        if not self._retired:
            self._watcher.lost()
        for tell in pending.values():
            tell(Lost(self.address, code, message))
