"""The way to a router that runs in this very process: messages are handed over, not sent.

To a request it is as good as a stream to another process. Such a router can refuse, and be closed
while somebody asks; it cannot fall silent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import grpc

from moe_client.channel import Metadata
from moe_client.messages import Make, Message
from moe_client.pipe import Answered, Tell
from moe_client.retry import Lost
from moe_core.loop_thread import LoopThread, Stopped
from moeops.v1.router_pb2 import RowsResponse

Answer = Callable[[Message], Awaitable[RowsResponse]]


class LocalRouter(Protocol):
    """A router in this process; `moe_router.embedded.EmbeddedRouter` is one."""

    @property
    def address(self) -> str:
        """Where to ask it by gRPC whatever is not about rows."""
        ...

    @property
    def thread(self) -> LoopThread:
        """Where it runs."""
        ...

    def enter(self, metadata: Metadata) -> Answer:
        """Return what answers this caller's requests, failures too; for the router's loop."""
        ...


Targets = str | Sequence[str] | LocalRouter
"""Which routers a client asks: one or more by their addresses, or one of its own process."""


def local_of(routers: Targets) -> LocalRouter | None:
    """Return the one of this process; None where they are addresses."""
    return None if isinstance(routers, str | Sequence) else routers


def addresses_of(routers: Targets) -> list[str]:
    """Return where they are asked by gRPC."""
    if isinstance(routers, str):
        return [routers]
    return list(routers) if isinstance(routers, Sequence) else [routers.address]


class InsidePipe:
    """Requests to a router of this process. Used from one event loop only, any one."""

    silent = False

    def __init__(self, router: LocalRouter, metadata: Metadata) -> None:
        self.address = router.address
        self.lost = False
        self._thread, self._answer = router.thread, router.enter(metadata)
        self._last_id = 0
        self._asking: dict[int, tuple[asyncio.Task[None], Tell]] = {}

    def send(self, make: Make, deadline_ms: int, tell: Tell) -> int:
        """Ask and return the request's id; what happens to it is told, until `forget`."""
        self._last_id += 1
        number = self._last_id
        work = self._ask(number, make(number, deadline_ms), tell)
        self._asking[number] = asyncio.get_running_loop().create_task(work), tell
        return number

    def forget(self, request_id: int) -> None:
        """Drop the request, if it is still under way."""
        asked = self._asking.pop(request_id, None)
        if asked is not None:
            asked[0].cancel()

    def retire(self) -> None:
        """Nothing: there is no connection to end."""

    async def close(self) -> None:
        """End; what is under way is told that it is lost."""
        self.lost = True
        asking, self._asking = self._asking, {}
        for task, tell in asking.values():
            task.cancel()
            tell(Lost(self.address, grpc.StatusCode.CANCELLED, "the client was closed"))
        await asyncio.gather(*(task for task, _ in asking.values()), return_exceptions=True)

    async def _ask(self, number: int, message: Message, tell: Tell) -> None:
        if asyncio.get_running_loop() is self._thread.loop:
            response: RowsResponse | None = await self._answer(message)
        else:
            response = await self._ask_there(message)
        if self._asking.pop(number, None) is None:
            return
        if response is None:
            text = "the router of this process was closed"
            tell(Lost(self.address, grpc.StatusCode.UNAVAILABLE, text))
        else:
            tell(Answered(self.address, response))

    async def _ask_there(self, message: Message) -> RowsResponse | None:
        """Ask on the router's loop; None where that has ended."""

        async def ask() -> RowsResponse:
            return await self._answer(message)

        try:
            return await asyncio.wrap_future(self._thread.submit(ask()))
        except Stopped:
            return None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return None  # it was the router's loop that ended
