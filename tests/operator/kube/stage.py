"""The operator on a real API server, with stand-ins for everything else, and words for tests."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import aiohttp
import kopf
import yaml

from moe_operator import access
from moe_operator.cluster import Conflict, Unavailable
from moe_operator.kinds import KINDS, NODE, Body, Kind
from moe_operator.options import Options
from moe_operator.program import operate
from moe_operator.rest import ApiServer
from tests.kube.audit import Request
from tests.kube.server import ADMIN_TOKEN, KubeServer
from tests.operator.kube.nodes import Nodes

DEPLOY = Path(__file__).resolve().parents[3] / "deploy"
SYSTEM = "moeops-system"
ACCOUNT = "moeops-operator"
_CONNECTED_S = 60.0  # what people wait for a connection before they give up


def install(server: KubeServer) -> None:
    """Create what an installation has, except the operator's own pods."""
    server.create_namespace(SYSTEM)
    for name in ("operator.yaml", "requested-by.yaml"):
        for body in yaml.safe_load_all((DEPLOY / name).read_text()):
            if body["kind"] != "Deployment":
                server.request("POST", collection(body), body)
    _await_policies(server)


def _await_policies(server: KubeServer) -> None:
    """Wait until Overrides get the name of who asks: policies act a moment after they are made."""
    path = f"/apis/moeops.dev/v1alpha1/namespaces/{SYSTEM}/overrides"
    spec = {"targetRef": {"kind": "Expert", "name": "e"}, "action": "Pause", "insteadOf": "v1"}
    body = {
        "apiVersion": "moeops.dev/v1alpha1",
        "kind": "Override",
        "metadata": {"name": "try"},
        "spec": spec,
    }
    forged = {**body, "spec": {**spec, "requestedBy": "nobody"}}
    until = time.monotonic() + 30
    while not (_taken(server, path, body) and not _taken(server, path, forged)):
        if time.monotonic() > until:
            raise TimeoutError("the admission policies for Overrides do not act after 30 s")
        time.sleep(0.05)


def _taken(server: KubeServer, path: str, body: Body) -> bool:
    """Return whether an object could be created, and says who asked."""
    try:
        made = server.request("POST", f"{path}?dryRun=All", body)
    except HTTPError as error:
        error.close()
        return False
    return "requestedBy" in made["spec"]


def collection(body: Body) -> str:
    group, _, version = body["apiVersion"].rpartition("/")
    root = f"/apis/{group}/{version}" if group else f"/api/{version}"
    kind = str(body["kind"])
    ending = "es" if kind.endswith("s") else "s"
    plural = kind.lower().removesuffix("y") + ("ies" if kind.endswith("y") else ending)
    namespace = body["metadata"].get("namespace")
    return f"{root}/namespaces/{namespace}/{plural}" if namespace else f"{root}/{plural}"


class PatientApi(ApiServer):
    """The API server as people and nodes reach it: they try again where no connection came about.

    Several operators share the loop and two cores with them: a handshake can take longer than the
    operator allows for one. It tries again by its queue.
    """

    async def _call(self, method: str, path: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        until = time.monotonic() + _CONNECTED_S
        while True:
            try:
                return await super()._call(method, path, *args, **kwargs)
            except Unavailable as error:
                if not isinstance(error.__cause__, aiohttp.ConnectionTimeoutError):
                    raise
                if time.monotonic() > until:
                    raise


@dataclass(slots=True)
class Stage:
    """One namespace with its nodes; the operator comes and goes."""

    server: KubeServer
    namespace: str
    api: ApiServer
    nodes: Nodes
    user: str = ACCOUNT
    _operator: asyncio.Task[None] | None = None
    _made: list[str] = field(default_factory=list)

    def start(self) -> None:
        """Start an operator, with the rights of its service account."""
        images = {"MOE_WORKER_IMAGE": "worker", "MOE_ROUTER_IMAGE": "router"}
        images["MOE_EVALUATOR_IMAGE"] = "evaluator"
        flags = ["--namespace", self.namespace, "--lease", "", "--health-port", "0"]
        flags += ["--metrics-port", "0"]
        options = Options.read(flags, images)
        self._operator = asyncio.create_task(
            operate(options, self.account(), lambda own: self.nodes)
        )

    async def stop(self) -> None:
        """End the operator, wherever it is."""
        if self._operator is not None:
            self._operator.cancel()
            await asyncio.gather(self._operator, return_exceptions=True)
            self._operator = None

    async def restart(self) -> None:
        """Have another operator, which has looked when this returns, and asked a router."""
        await self.stop()
        before, until = self.nodes.asked, time.monotonic() + 30
        self.start()
        while self.nodes.asked == before:
            assert time.monotonic() < until, "another operator asks nobody"
            await asyncio.sleep(0.05)

    def account(self) -> access.Find:
        """Return how the operator's service account reaches the API server."""
        config = yaml.safe_load(self.server.kubeconfig(SYSTEM, self.user).read_text())
        token = config["users"][0]["user"]["token"]
        certificate = str(self.server.certificate)
        return lambda: kopf.ConnectionInfo(server=self.server.url, ca_path=certificate, token=token)

    async def add_node(self) -> str:
        """Make a Node; it goes with this stage, as other tests' operators would see it, too."""
        name = f"n-{self.namespace}"
        body = {"metadata": {"name": name}}
        await asyncio.to_thread(self.server.request, "POST", NODE.path(None), body)
        self._made.append(name)
        return name

    async def remove_nodes(self) -> None:
        for name in self._made:
            await asyncio.to_thread(self.server.request, "DELETE", NODE.path(None, name))

    async def apply(self, *bodies: Body) -> None:
        """Create or change objects, as people do."""
        for body in bodies:
            meta = {**body["metadata"], "namespace": self.namespace}
            await self.api.apply(KINDS[body["kind"]], {**body, "metadata": meta})

    async def patch(self, kind: Kind, name: str, patch: dict[str, Any], part: str = "") -> None:
        await self.api.merge(kind, self.namespace, name, patch, part)

    async def delete(self, kind: Kind, name: str) -> Body:
        """Delete an object whatever its version is, as people do; return what it was."""
        while True:
            seen = await self.get(kind, name)
            with contextlib.suppress(Conflict):
                await self.api.delete(kind, seen)
                return seen

    async def all(self, kind: Kind) -> list[Body]:
        return (await self.api.list_all(kind, self.namespace, brief=False))[0]

    async def get(self, kind: Kind, name: str) -> Body:
        return await self.api.get(kind, self.namespace, name)

    async def until(
        self, kind: Kind, name: str, check: Callable[[Body], object], within_s: float = 30
    ) -> Body:
        """Wait until an object is as it should be, and return it."""
        until, last = time.monotonic() + within_s, None
        while time.monotonic() < until:
            with contextlib.suppress(Exception):
                last = await self.get(kind, name)
                if check(last):
                    return last
            if self._operator is not None and self._operator.done():
                self._operator.result()
                raise AssertionError("the operator has ended")
            await asyncio.sleep(0.02)
        raise AssertionError(f"{kind.name} {name} did not become so: {yaml.safe_dump(last)}")

    async def gone(self, kind: Kind, name: str) -> None:
        """Wait until there is no such object."""
        until = time.monotonic() + 30
        while name in {body["metadata"]["name"] for body in await self.all(kind)}:
            assert time.monotonic() < until, f"{kind.name} {name} is still there"
            await asyncio.sleep(0.05)

    async def quiet(self, for_s: float = 1.5) -> int:
        """Wait until nobody writes any more; return the place in the audit log."""
        place, since = self.server.audit.position(), time.monotonic()
        while time.monotonic() - since < for_s:
            await asyncio.sleep(0.1)
            if self.requests(place):
                place, since = self.server.audit.position(), time.monotonic()
        return place

    def writes(self, place: int) -> list[str]:
        """Return what the operator wrote in this namespace since a place in the audit log."""
        return [f"{r.verb} {r.resource} {r.name}".strip() for r in self.requests(place)]

    def requests(self, place: int) -> list[Request]:
        """Return the operator's accepted writes in this namespace since a place in the log."""
        return [
            request
            for request in self.server.audit.since(place)
            if request.changed
            and request.namespace == self.namespace
            and request.user.endswith(f":{self.user}")
        ]


@contextlib.asynccontextmanager
async def staged(server: KubeServer, namespace: str, user: str = ACCOUNT) -> AsyncIterator[Stage]:
    """Give a stage whose nodes run; the operator, which is not started yet, is that account."""
    certificate = str(server.certificate)

    def admin() -> kopf.ConnectionInfo:
        return kopf.ConnectionInfo(server=server.url, ca_path=certificate, token=ADMIN_TOKEN)

    async with access.open_session(admin, 16) as session:
        api = PatientApi(session, server.url)
        nodes = Nodes(api, namespace)
        stage = Stage(server, namespace, api, nodes, user)
        running = asyncio.create_task(nodes.run())
        try:
            yield stage
        finally:
            await stage.stop()
            await stage.remove_nodes()
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
    await asyncio.sleep(0.05)  # connections that were closed need the loop a little longer
