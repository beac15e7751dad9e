"""Where the table and the list of workers come from: a file and flags, or the API server.

A source hands on what it reads, on the event loop, and keeps going through troubles. It does not
judge: `Tables` and `Links` do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Protocol

import yaml

from moe_core.log import tell
from moe_router.kube import Api, Objects, Watch
from moe_router.parts import TableParts
from moe_router.said import Body, Said
from moe_router.trust import TLS

POLL_S = 0.05
# Port of a worker's endpoint, and what stands before its link address.
_SCHEMES = {"link": "", "link-tls": TLS}


class TableSource(Protocol):
    """Gives tables for as long as it is followed."""

    async def follow(self, take: Callable[[Said], object], confirm: Callable[[], object]) -> None:
        """Call `take` with each state of the object and `confirm` when it is still that one."""
        ...


class WorkerSource(Protocol):
    """Gives link addresses of workers for as long as it is followed."""

    async def follow(self, take: Callable[[Collection[str]], None]) -> None:
        """Call `take` with all addresses after each change."""
        ...


class TableFile:
    """A file with the object in JSON or YAML; read again when it changes."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def follow(self, take: Callable[[Said], object], confirm: Callable[[], object]) -> None:
        seen: object = None
        read = False
        while True:
            now = self._stamp()
            if now != seen:
                seen = now
                read = self._read(take)
            if now is not None and read:
                confirm()
            await asyncio.sleep(POLL_S)

    def _stamp(self) -> object:
        try:
            stat = self._path.stat()
        except OSError:
            return None
        return (stat.st_mtime_ns, stat.st_size, stat.st_ino)

    def _read(self, take: Callable[[Said], object]) -> bool:
        """Hand on what the file holds; says whether it holds an object."""
        try:
            body = yaml.safe_load(self._path.read_text())
        except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
            tell("table_file_unreadable", file=self._path, reason=error)
            return False
        if isinstance(body, dict):
            take(Said.of(body))
            return True
        reason = f"it holds a {type(body).__name__}; it must be a RoutingTable object"
        tell("table_file_unreadable", file=self._path, reason=reason)
        return False


class FixedWorkers:
    """The addresses that were given once and for all."""

    def __init__(self, addresses: Collection[str]) -> None:
        self._addresses = addresses

    async def follow(self, take: Callable[[Collection[str]], None]) -> None:
        take(self._addresses)
        await asyncio.Event().wait()


class TableObject:
    """The RoutingTable of one name in one namespace. A deleted one leaves the last in place.

    Where it is a head, it is handed on when all its parts are there.
    """

    def __init__(self, api: Api, namespace: str, name: str) -> None:
        self._api, self._name = api, name
        self._path = f"/apis/moeops.dev/v1alpha1/namespaces/{namespace}/routingtables"
        self._parts = TableParts(api, namespace, name)

    async def follow(self, take: Callable[[Said], object], confirm: Callable[[], object]) -> None:
        loop, present = asyncio.get_running_loop(), False

        def fetched(objects: Objects) -> None:
            """In the watch's thread, which may wait for parts, and may take its time to read."""
            body = objects.get(self._name)
            said = None if body is None else self._parts.said(body)
            _call(loop, lambda: changed(said))

        def changed(said: Said | None) -> None:
            nonlocal present
            if said is not None:
                take(said)
            elif present:
                tell("table_gone", name=self._name)
            present = said is not None

        def confirmed() -> None:
            if present:
                confirm()

        query = {"fieldSelector": f"metadata.name={self._name}"}
        watch = Watch(self._api, self._path, query, fetched, _onto0(loop, confirmed))
        await _run(watch)


class EndpointSlices:
    """The endpoints of a Service, ready or not, by the ports named `link` and `link-tls`."""

    def __init__(self, api: Api, namespace: str, service: str) -> None:
        self._api, self._service = api, service
        self._path = f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"

    async def follow(self, take: Callable[[Collection[str]], None]) -> None:
        loop = asyncio.get_running_loop()
        query = {"labelSelector": f"kubernetes.io/service-name={self._service}"}
        changed = _onto(loop, lambda objects: take(addresses(objects)))
        await _run(Watch(self._api, self._path, query, changed, lambda: None))


def addresses(slices: Objects) -> frozenset[str]:
    """Return the link address of every endpoint in these EndpointSlices.

    Whether a worker's links have TLS is said here, by the name of its port, and never found out
    by trying: who is in between could make it look as if there were none.
    """
    found = set()
    for body in slices.values():
        ports = [(_SCHEMES[p["name"]], p["port"]) for p in body.get("ports") or [] if _link(p)]
        hosts = [a for e in body.get("endpoints") or [] for a in e.get("addresses") or []]
        found |= {
            f"{scheme}[{host}]:{port}" if ":" in host else f"{scheme}{host}:{port}"
            for host in hosts
            for scheme, port in ports
        }
    return frozenset(found)


def _link(port: Body) -> bool:
    return port.get("name") in _SCHEMES and port.get("port") is not None


async def _run(watch: Watch) -> None:
    watch.start()
    try:
        await asyncio.Event().wait()
    finally:
        watch.end()


def _onto(
    loop: asyncio.AbstractEventLoop, call: Callable[[Objects], None]
) -> Callable[[Objects], None]:
    return lambda objects: _call(loop, lambda: call(objects))


def _onto0(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> Callable[[], None]:
    return lambda: _call(loop, call)


def _call(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    """Run on the loop, unless the program is ending and the loop is closed."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(call)
