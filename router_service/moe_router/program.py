"""A running router: puts sources, tables, links, engine and service together, and takes them down.

After SIGTERM it says that it is not ready, goes on for a moment while clients learn of it, answers
what is under way and ends.
"""

from __future__ import annotations

import asyncio
import signal
import time
import uuid
from collections.abc import Callable
from typing import Any

import grpc
from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio as health

from moe_core.log import tell
from moe_core.metrics_port import CannotListen, MetricsPort
from moe_core.metrics_settings import Detail
from moe_core.tracing import Tracer
from moe_core.tracing_start import CannotTrace, tracer_of
from moe_router import edge
from moe_router.collect import RouterMetrics
from moe_router.copies import Copies
from moe_router.describe import Describer, Identity
from moe_router.edge import CannotStart
from moe_router.engine import Engine, Limits
from moe_router.gates import GateArtifacts
from moe_router.intake import Intake
from moe_router.links import Links
from moe_router.service import RouterServicer
from moe_router.settings import Settings
from moe_router.sources import (
    EndpointSlices,
    FixedWorkers,
    TableFile,
    TableObject,
    TableSource,
    WorkerSource,
)
from moe_router.tables import Tables
from moe_router.tenants import Tenants

END_S = 30.0

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Router:
    """One router with everything it holds. Made and run on one event loop."""

    def __init__(
        self, settings: Settings, table: TableSource, workers: WorkerSource, tracer: Tracer
    ) -> None:
        self._settings, self._table_source, self._worker_source = settings, table, workers
        self._tracer = tracer
        clock = time.monotonic
        self.tables = Tables(settings.mixture, clock)
        self._certificate = edge.certificate(settings)
        self.links = Links(clock, edge.trust(settings, self._certificate))
        self._gates = GateArtifacts(settings.cache)
        self.tables.on_change(self._gates.want)
        weights = {tenant.name: tenant.weight for tenant in settings.tenants}
        limits = Limits(settings.max_rows, settings.deadline_s, settings.rows_at_work, weights)
        self._tenants = Tenants(settings.tenants, clock)
        self._door = edge.door(settings, self._tenants)
        self.engine = Engine(self.tables, self.links, self._gates, clock, limits)
        self.tables.on_change(self.engine.scorings.keep)
        self.tables.on_change(lambda _: self.engine.changed())
        self.links.on_change(self.engine.changed)
        identity = Identity(settings.name, settings.node, uuid.uuid4().hex, settings.mixture)
        counters, outcomes = self.engine.counters, self.engine.outcomes
        describer = Describer(
            identity,
            self.tables,
            self.links,
            counters,
            outcomes,
            self._gates,
            self.engine.scorings,
            clock,
            time.time,
        )
        self.servicer = RouterServicer(
            self.engine, self.tables, self._gates, describer, tracer, self._door
        )
        self._metrics = MetricsPort(self._collector(clock))
        self._health = health.HealthServicer()
        self._servers: list[grpc.aio.Server] = []
        self._intake = Intake(self.tables, self.links, _copies(settings), time.time, clock)

    def _collector(self, clock: Callable[[], float]) -> RouterMetrics:
        return RouterMetrics(
            self._settings.mixture,
            self.engine,
            self.tables,
            self.links,
            self._gates,
            lambda: len(self.servicer.streams),
            clock,
            tenants=self._tenants,
            detail=self._settings.metrics_detail is Detail.FULL,
        )

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT. Raises CannotStart."""
        ended = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, ended.set)
        await self.listen()
        await self.serve(ended)

    async def listen(self) -> None:
        """Open all ports. Raises CannotStart."""
        await self._listen_for_scrapes()
        await self._set_health(_NOT_SERVING)
        await self._health.set("liveness", _SERVING)
        self._servers += await edge.listen(
            self._settings, self._certificate, self.servicer, self._health
        )

    async def listen_inside(self, path: str) -> None:
        """Open a socket for callers of this process alone. Raises CannotStart."""
        self._servers.append(await edge.listen_inside(self.servicer, path))

    async def serve(self, ended: asyncio.Event) -> None:
        """Serve until then. Raises what ends a source."""
        self.tables.on_change(lambda _: self._set_ready())
        if self._settings.workers is None:
            self._intake.restore_workers()
        tasks = [asyncio.create_task(work) for work in self._works()]
        stopped = asyncio.create_task(ended.wait())
        await asyncio.wait([stopped, *tasks], return_when=asyncio.FIRST_COMPLETED)
        await self._end()
        for task in [stopped, *tasks]:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        for error in results:
            if isinstance(error, Exception):
                raise error

    async def _listen_for_scrapes(self) -> None:
        if self._settings.metrics is None:
            return
        host, port = self._settings.metrics
        try:
            port = await self._metrics.listen(host, port, f"--metrics {host}:{port}")
        except CannotListen as error:
            raise CannotStart(str(error)) from error
        tell("metrics", address=f"{host}:{port}")

    def _works(self) -> list[Any]:
        return [
            self._table_source.follow(self._intake.take_table, self._intake.confirm),
            self._worker_source.follow(self._intake.take_workers),
            self.links.watch(),
            self.servicer.streams.beat(),
            self._door.watch(),
            self._serve(),
        ]

    async def _serve(self) -> None:
        await self._intake.open()
        await asyncio.Event().wait()

    def _set_ready(self) -> None:
        self._ready = asyncio.ensure_future(self._set_health(_SERVING))

    async def _set_health(self, status: Any) -> None:
        for service in ("", "readiness"):
            await self._health.set(service, status)

    async def _end(self) -> None:
        tell("ending", drain_s=self._settings.drain_s)
        await self._set_health(_NOT_SERVING)
        await asyncio.sleep(self._settings.drain_s)
        self.servicer.streams.end()
        await self.close(END_S)

    async def close(self, grace_s: float = 0.0) -> None:
        """Close all ports, at the latest after that time what is under way, and end."""
        await asyncio.gather(*(server.stop(grace_s) for server in self._servers))
        self._gates.end()
        self._metrics.close()
        await asyncio.to_thread(self._tracer.close)
        tell("ended")


def _copies(settings: Settings) -> Copies | None:
    if settings.cache is None:
        return None
    return Copies(settings.cache, settings.namespace, settings.mixture)


def tracer(settings: Settings) -> Tracer:
    """Return what sends spans where the settings say. Raises CannotStart."""
    about = {
        "service.instance.id": settings.name,
        "k8s.pod.name": settings.name,
        "k8s.node.name": settings.node,
        "k8s.namespace.name": settings.namespace,
        "moe.mixture": settings.mixture,
    }
    try:
        return tracer_of(settings.tracing, "moe-router", about)
    except CannotTrace as error:
        raise CannotStart(str(error)) from error


def sources(settings: Settings) -> tuple[TableSource, WorkerSource]:
    """Return where the settings say that table and workers come from. Raises CannotStart."""
    file, fixed = settings.table_file, settings.workers
    if file is not None and fixed is not None:
        return TableFile(file), FixedWorkers(fixed)
    from moe_router.kube import ApiServer, NoCluster  # slow, and of no use without a cluster

    try:
        api = ApiServer(settings.kubeconfig)
    except NoCluster as error:
        text = f"{error}; give --table-file and --workers to serve without a cluster"
        raise CannotStart(text) from error
    namespace, name = settings.namespace, settings.mixture
    table = TableObject(api, namespace, name) if file is None else TableFile(file)
    workers = (
        EndpointSlices(api, namespace, f"{name}-workers") if fixed is None else FixedWorkers(fixed)
    )
    return table, workers
