"""A router inside another process: a client there asks it without messages, and waits less.

    with EmbeddedRouter(["--mixture", "tiny"]) as router, moe_client.attach(model, router):
        model.generate(…)

It is a router in every way: it has the same settings, watches table and workers by itself, listens
for other clients, and the operator asks it what it has and waits for it as for the others. Only
the rows of its own process take a shorter way, to the same engine. It runs in a thread of its own,
since links live while the model computes.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import Final, Self

import uvloop

from moe_core.loop_thread import LoopThread
from moe_router.door import Entry, Metadata
from moe_router.program import END_S, Router, sources, tracer
from moe_router.refusal import Code, Refused
from moe_router.service import Request, RouterServicer, refusal
from moe_router.settings import parse
from moeops.v1.router_pb2 import RowsResponse

_NOT_RUNNING: Final = "the embedded router is not running; start it first"


class EmbeddedRouter:
    """A router in a thread of this process, from `start` to `close`.

    Arguments and environment are those of `python -m moe_router`. Raises BadSetting.
    """

    def __init__(
        self, arguments: Sequence[str] = (), environment: Mapping[str, str] = os.environ
    ) -> None:
        self._settings = parse(arguments, environment)
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._thread: LoopThread | None = None
        self._router: Router | None = None
        self._serving: asyncio.Task[None] | None = None
        self._ended = asyncio.Event()
        self._under_way: set[asyncio.Future[None]] = set()

    @property
    def address(self) -> str:
        """Where this process asks it by gRPC whatever is not about rows. Raises RuntimeError."""
        if self._folder is None:
            raise RuntimeError(_NOT_RUNNING)
        return f"unix:{self._folder.name}/router.sock"

    @property
    def thread(self) -> LoopThread:
        """Where it runs. Raises RuntimeError where it does not."""
        if self._thread is None:
            raise RuntimeError(_NOT_RUNNING)
        return self._thread

    def start(self) -> Self:
        """Run, from now on. Raises CannotStart."""
        if self._thread is not None:
            return self
        self._folder = tempfile.TemporaryDirectory(prefix="moe-router-")  # of this user alone
        self._thread = LoopThread("moe-router", uvloop.new_event_loop())
        try:
            self._thread.submit(self._begin()).result()
        except BaseException:
            self._gone()
            raise
        return self

    def close(self) -> None:
        """Answer what is under way, and end. Once more does nothing. Raises what had ended it."""
        if self._thread is None:
            return
        try:
            self._thread.submit(self._finish()).result()
        finally:
            self._gone()

    def enter(self, metadata: Metadata) -> Callable[[Request], Awaitable[RowsResponse]]:
        """Return what answers requests of one caller; to be awaited on the router's loop.

        What fails is said in the response. Raises RuntimeError where the router does not run.
        """
        if self._router is None:
            raise RuntimeError(_NOT_RUNNING)
        inside = _Inside(self._router.servicer, tuple(metadata))
        return lambda request: self._answer(inside, request)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _gone(self) -> None:
        assert self._thread is not None
        assert self._folder is not None
        self._thread.stop()
        self._folder.cleanup()
        self._thread = self._folder = self._router = None

    async def _begin(self) -> None:
        self._ended = asyncio.Event()
        router = Router(self._settings, *sources(self._settings), tracer(self._settings))
        try:
            await router.listen()
            await router.listen_inside(self.address.removeprefix("unix:"))
        except BaseException:
            await router.close()
            raise
        self._router = router
        self._serving = asyncio.create_task(router.serve(self._ended))

    async def _answer(self, inside: _Inside, request: Request) -> RowsResponse:
        if self._ended.is_set():
            return refusal(request, Refused(Code.UNAVAILABLE, "the embedded router is ending"))
        done = asyncio.get_running_loop().create_future()
        self._under_way.add(done)
        try:
            return await inside.answer(request)
        finally:
            self._under_way.discard(done)
            done.set_result(None)

    async def _finish(self) -> None:
        self._ended.set()
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=END_S)
        if self._serving is not None:
            await self._serving


class _Inside:
    """One caller of this process, let in when it first asks."""

    def __init__(self, servicer: RouterServicer, metadata: Metadata) -> None:
        self._servicer, self._metadata = servicer, metadata
        self._entry: Entry | None = None

    async def answer(self, request: Request) -> RowsResponse:
        if self._entry is None:
            try:
                self._entry = self._servicer.enter(self._metadata)
            except Refused as refused:
                return refusal(request, refused)
        reply = await self._servicer.answer(request, self._entry)
        asyncio.get_running_loop().call_soon(reply.afterwards)  # once the caller has its answer
        return reply.response
