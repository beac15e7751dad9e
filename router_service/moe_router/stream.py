"""One stream of requests: takes them as they come, answers in any order, shows that it lives.

A stream is only a pipe: a request that fails is answered with its failure. What is taken in and
not yet written out is bounded, so that a slow reader slows its own sending and nothing else. What
is no message ends the stream, once everything before it is answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from google.protobuf.message import DecodeError

from moe_core.log import tell
from moe_router.refusal import Code, Refused
from moeops.v1.router_pb2 import DispatchRequest, RouteRequest, RowsResponse

R = TypeVar("R", DispatchRequest, RouteRequest)

REQUESTS_PER_STREAM = 256
HEARTBEAT_S = 0.05


def _nothing() -> None:
    pass


@dataclass(frozen=True, slots=True)
class Reply:
    """A response, and what is to be done once it has been written.

    One that answers no request is a sign of life.
    """

    response: RowsResponse
    afterwards: Callable[[], None] = _nothing
    answers: bool = True


class RowsStream(Generic[R]):
    """Runs the requests of one stream through `serve`, which never raises."""

    def __init__(self, serve: Callable[[R], Awaitable[Reply]]) -> None:
        self._serve: Callable[[R], Awaitable[Reply]] = serve
        self._answers: asyncio.Queue[Reply | None] = asyncio.Queue()
        self._room = asyncio.Semaphore(REQUESTS_PER_STREAM)
        self._under_way: set[asyncio.Task[None]] = set()
        self._reader: asyncio.Task[None] | None = None
        self._refusal: Refused | None = None

    def heartbeat(self) -> None:
        """Show a sign of life, if the client waits for something and nothing else says it."""
        if self._under_way and self._answers.empty():
            self._answers.put_nowait(Reply(RowsResponse(), answers=False))

    def end(self) -> None:
        """Take nothing more; the stream ends when what is under way is answered."""
        if self._reader is not None:
            self._reader.cancel()

    async def run(self, requests: AsyncIterator[R]) -> AsyncGenerator[RowsResponse, None]:
        """Give the answers until the requests have ended and all are answered. Raises Refused."""
        self._reader = asyncio.create_task(self._read(requests))
        try:
            while (reply := await self._answers.get()) is not None:
                yield reply.response
                if reply.answers:
                    self._room.release()
                reply.afterwards()
            if self._refusal is not None:
                raise self._refusal
        finally:
            self._reader.cancel()
            for task in self._under_way:
                task.cancel()

    async def _read(self, requests: AsyncIterator[R]) -> None:
        try:
            await self._room.acquire()
            async for request in requests:
                task = asyncio.create_task(self._answer(request))
                self._under_way.add(task)
                task.add_done_callback(self._under_way.discard)
                await self._room.acquire()
        except DecodeError as error:
            text = f"a message is not what this method takes, and no later one is read: {error}"
            self._refusal = Refused(Code.INVALID_ARGUMENT, text)
        except Exception as error:  # the client is gone
            tell("stream_broken", reason=repr(error))
        finally:
            ending = asyncio.gather(*self._under_way, return_exceptions=True)
            ending.add_done_callback(lambda _: self._answers.put_nowait(None))

    async def _answer(self, request: R) -> None:
        self._answers.put_nowait(await self._serve(request))
