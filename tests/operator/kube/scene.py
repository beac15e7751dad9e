"""A `Scene` on a real API server: the whole operator, and time as it passes."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from moe_operator.cluster import NotFound
from moe_operator.kinds import ROUTING_TABLE, Body
from tests.kube.server import KubeServer
from tests.operator.engine.scene import Clients
from tests.operator.kube.nodes import Nodes
from tests.operator.kube.stage import Stage, staged

_WITHIN_S = 60.0
_QUIET_S = 4.0  # much longer than any pause of the scenarios
_TURN_S = 0.05


@dataclass(slots=True)
class RealScene:
    """One namespace of a real API server."""

    stage: Stage
    clients: Clients
    nodes: Nodes

    @property
    def namespace(self) -> str:
        return self.stage.namespace

    @property
    def api(self) -> Any:
        return self.stage.api

    async def put(self, *bodies: Mapping[str, Any]) -> None:
        await self.stage.apply(*bodies)

    async def until(self, check: Callable[[Body], object]) -> None:
        end, table = time.monotonic() + _WITHIN_S, Body
        while time.monotonic() < end:
            table = await self._table()
            if check(table):
                return
            await asyncio.sleep(_TURN_S)
        raise AssertionError(f"the table did not become so: {table}")

    async def _table(self) -> Any:
        try:
            return (await self.stage.get(ROUTING_TABLE, "tiny"))["spec"]
        except NotFound:
            return {}

    async def passes(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def rest(self) -> None:
        await self.stage.quiet(_QUIET_S)

    async def operate(self, running: bool) -> None:
        if running:
            self.stage.start()
        else:
            await self.stage.stop()

    async def end(self, ending: bool) -> None:
        await asyncio.to_thread(self._end if ending else self._begin_anew)

    def _end(self) -> None:
        self.stage.server.request("DELETE", f"/api/v1/namespaces/{self.namespace}")

    def _begin_anew(self) -> None:
        """Finish the namespace as its controller would, and make one of the same name."""
        path = f"/api/v1/namespaces/{self.namespace}"
        server = self.stage.server
        body = server.request("GET", path)
        assert body["status"]["phase"] == "Terminating"
        server.request("PUT", f"{path}/finalize", {**body, "spec": {"finalizers": []}})
        server.create_namespace(self.namespace)

    def decisive(self, place: int) -> Counter[str]:
        """Return how often the operator wrote what decides something, since a place in the log."""
        return Counter(
            f"{request.verb} {request.resource}"
            for request in self.stage.requests(place)
            if request.subresource != "status" and request.resource != "events"
        )


@contextlib.asynccontextmanager
async def scene(server: KubeServer, namespace: str) -> AsyncIterator[RealScene]:
    """Give a scene whose nodes and clients run; the operator is not started yet."""
    async with staged(server, namespace) as stage:
        made = RealScene(stage, Clients(stage.nodes), stage.nodes)

        async with asking(made.clients):
            yield made


@contextlib.asynccontextmanager
async def asking(clients: Clients) -> AsyncIterator[None]:
    """Let clients ask, as often as they want to, for as long as this lasts."""

    async def ask() -> None:
        while True:
            clients.turn()
            await asyncio.sleep(_TURN_S)

    task = asyncio.create_task(ask())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
