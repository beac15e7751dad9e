"""The operator put together: cache, watches, reports, looks and the Lease, running side by side."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime
from functools import partial
from logging import ERROR, WARNING
from typing import Final, Protocol

import aiohttp

from moe_core.log import tell
from moe_core.metrics_port import MetricsPort
from moe_core.tls import Material
from moe_operator import access, heap, probes
from moe_operator.apply import Apply
from moe_operator.cache import Cache, Key
from moe_operator.certificates import BadCertificate
from moe_operator.certify import Certify
from moe_operator.checkups import Checkups
from moe_operator.cluster import ApiError, Writer
from moe_operator.collect import OperatorMetrics
from moe_operator.drifts import Drifts
from moe_operator.engine import Engine, Look, wall_clock
from moe_operator.fence import Fence
from moe_operator.kinds import Body, Kind
from moe_operator.lease import Lease, LeaseLost
from moe_operator.notes import Notes
from moe_operator.options import Options
from moe_operator.prometheus import Prometheus
from moe_operator.reconcile import Reconcile
from moe_operator.reports import Asker, Reports
from moe_operator.rest import ApiServer
from moe_operator.router_report import RouterReport
from moe_operator.scalers import Scalers
from moe_operator.sweep import Sweep
from moe_operator.watch import Watch

_CONNECTIONS: Final = 32
_STOP_S: Final = 0.5


MakeAsker = Callable[[Callable[[], Material | None]], Asker]


async def operate(options: Options, find: access.Find, make_asker: MakeAsker) -> None:
    """Run until cancelled. Raises NoAccess and CannotListen."""
    async with (
        access.open_session(find, _CONNECTIONS) as session,
        aiohttp.ClientSession() as anonymous,  # Prometheus is not shown who we are
    ):
        api = ApiServer(session, find().server)
        cache = Cache()
        engine = Engine(cache)
        scalers, drifts, checkups = Scalers(), Drifts(), Checkups()
        hear = partial(_hear, (scalers, drifts, checkups))
        lease = _lease(api, options)
        writer = api if lease is None else Fence(api, lease.leads)
        certify = _certify(options, writer, api, cache)
        asker = make_asker((lambda: None) if certify is None else certify.own)
        reports = Reports(asker, engine.queue.add, wall_clock, hear)
        samples = Prometheus(anonymous, lambda key: engine.add((key,)), wall_clock)
        notes = Notes(writer, cache, wall_clock)
        apply = Apply(writer, api, cache, notes, done=engine.done)
        settings = options.settings
        look = Reconcile(
            cache, reports, apply, settings, wall_clock, samples, scalers, drifts, checkups
        )
        sweep = Sweep(api, cache, options.namespaces or (None,), engine.add)
        tell = partial(_hand_over, asyncio.get_running_loop(), engine)
        watch = Watch(find, options.namespaces, tell)
        ends = tuple if certify is None else certify.ends
        collector = OperatorMetrics(engine, look.ends, drifts, options.lease, lease, ends)
        metrics = MetricsPort(collector)
        if options.metrics_port:
            said = f"--metrics-port {options.metrics_port}"
            await metrics.listen("0.0.0.0", options.metrics_port, said)
        told = partial(_wrong, watch), partial(_unready, watch)
        try:
            async with probes.serving(options.health_port, *told), asyncio.TaskGroup() as group:
                kinds = await engine.fill(sweep)
                watch.start(kinds)
                group.create_task(heap.keep())
                swept = replace(sweep, kinds=kinds)
                group.create_task(engine.sweep(swept, options.sweep_s))
                group.create_task(_lead(engine, look, notes, (reports, samples), lease, certify))
        finally:
            metrics.close()
            await _stop(watch, reports, samples, lease)


async def _lead(
    engine: Engine,
    look: Look,
    notes: Notes,
    asking: tuple[Reports, Prometheus],
    lease: Lease | None,
    certify: Certify | None,
) -> None:
    """Look at all mixtures whenever this process leads; its cache stays warm meanwhile."""
    while True:
        if lease is not None:
            await lease.acquire()
        engine.add(engine.cache.keys())
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(engine.work(_certified(look, certify)))
                if certify is not None:
                    group.create_task(certify.keep())
                group.create_task(notes.run())
                if lease is not None:
                    group.create_task(lease.hold())
        except* LeaseLost as lost:
            tell("leads_no_longer", level=ERROR, reason=lost.exceptions[0])
            await asyncio.gather(*(each.close() for each in asking))


async def _stop(watch: Watch, reports: Reports, samples: Prometheus, lease: Lease | None) -> None:
    watching = asyncio.to_thread(watch.stop, _STOP_S)
    await asyncio.gather(watching, reports.close(), samples.close(), _release(lease))


async def _release(lease: Lease | None) -> None:
    if lease is not None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STOP_S):
                await lease.release()


class _Listener(Protocol):
    def hear(self, key: Key, reports: Iterable[RouterReport], now: datetime) -> bool: ...


def _hear(
    listeners: Iterable[_Listener], key: Key, said: Iterable[RouterReport], now: datetime
) -> bool:
    """Take in what routers of a mixture said; return whether it is to be looked at."""
    reports = tuple(said)
    news = [each.hear(key, reports, now) for each in listeners]
    return any(news)


def _hand_over(
    loop: asyncio.AbstractEventLoop, engine: Engine, kind: Kind, event: str | None, body: Body
) -> None:
    """Bring an event from the watching thread to the loop that decides."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(engine.seen, kind, event, body)


def _certified(look: Look, certify: Certify | None) -> Look:
    """Let a mixture's certificates be there before its pods; where that fails, looks go on."""
    if certify is None:
        return look

    async def both(key: Key) -> datetime | None:
        try:
            await certify(key)
        except (ApiError, BadCertificate) as error:
            tell("certificates_not_made", level=WARNING, mixture=str(key), reason=error)
        return await look(key)

    return both


def _certify(options: Options, writer: Writer, api: ApiServer, cache: Cache) -> Certify | None:
    settings = options.settings
    if not settings.secure:
        return None
    where = options.lease_namespace, options.authority
    own = settings.operator
    return Certify(writer, api, cache, *where, own, wall_clock, options.authority_from)


def _lease(api: ApiServer, options: Options) -> Lease | None:
    if not options.lease:
        return None
    where = options.lease_namespace, options.lease
    return Lease(api, api, *where, options.identity, time.monotonic)


def _wrong(watch: Watch) -> str:
    return "the watching thread has ended" if watch.started and not watch.alive else ""


def _unready(watch: Watch) -> str:
    """Whoever does not lead is ready too, once it knows all objects: it could at once."""
    return "" if watch.started else "the objects have not been read yet"
