"""Puts a worker together and runs it: start, serve, drain, end.

The one place that knows clocks, threads and signals; what it joins knows none of the others.
"""

from __future__ import annotations

import os
import signal
import threading
import time
import traceback
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from moe_core.log import Log
from moe_core.metrics_settings import Detail
from moe_core.tls import Folder
from moe_core.tracing import Tracer
from moe_core.tracing_start import tracer_of
from moe_worker import control, links
from moe_worker.admission import Gatekeeper
from moe_worker.backlog import Backlog
from moe_worker.collect import WorkerMetrics
from moe_worker.compute import Computer
from moe_worker.control import Control, WorkerServicer
from moe_worker.counters import Counters
from moe_worker.device import find, told
from moe_worker.expert import Fit, Rules
from moe_worker.intake import Intake
from moe_worker.inventory import Identity, assigned_state, make_inventory, ready
from moe_worker.links import Handlers, Links
from moe_worker.loader import Loader
from moe_worker.scrapes import Scrapes
from moe_worker.settings import Settings
from moe_worker.shelf import Shelf
from moe_worker.source import Artifacts
from moe_worker.spans import ComputeSpans
from moeops.v1.link_pb2 import Heartbeat, Inventory, LinkFrame
from moeops.v1.worker_pb2 import DescribeWorkerResponse

IDLE_S = 0.5
_FLUSH_S = 2.0
_LOOK_S = 0.05


def clock_us() -> int:
    """Return microseconds that only rise."""
    return time.monotonic_ns() // 1000


@dataclass(slots=True)
class Worker:
    """A worker's parts. `start`, then `drain`."""

    settings: Settings
    log: Log
    tracer: Tracer
    device: torch.device
    identity: Identity = field(init=False)
    counters: Counters = field(init=False)
    backlog: Backlog = field(init=False)
    intake: Intake = field(init=False)
    rules: Rules = field(init=False)
    loader: Loader = field(init=False)
    links: Links = field(init=False)
    control: Control = field(init=False)
    scrapes: Scrapes | None = field(init=False, default=None)
    draining: bool = False
    _publishing: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        settings = self.settings
        shelf = Shelf()
        self.identity = Identity(settings.name, settings.node, uuid.uuid4().hex)
        self.counters = Counters(clock_us)
        self.backlog = Backlog(settings.queue_rows)
        keeper = Gatekeeper(settings.hidden_size, settings.dtype, settings.queue_rows, shelf.find)
        self.intake = Intake(keeper, self.backlog, self.counters, clock_us, self.device)
        self.rules = Rules(settings.dtype, settings.exact, self.device)
        self.loader = Loader(
            Artifacts(settings.cache),
            shelf,
            Fit(settings.hidden_size, settings.dtype),
            self.rules,
            changed=self.publish,
            log=self.log,
            clock=time.monotonic,
        )
        handlers = Handlers(self.intake.take, self.heartbeat)
        servicer = WorkerServicer(self.loader.assign, self.describe)
        between, above = _guards(settings, self.log)
        self.links = Links(settings.link, handlers, self.log, between)
        self.control = Control(settings.control, servicer, above)
        if settings.metrics is not None:
            self.scrapes = Scrapes(self._collector(), *settings.metrics)

    def _collector(self) -> WorkerMetrics:
        return WorkerMetrics(
            self.settings.mixture,
            self.counters,
            self.backlog,
            self.loader.states,
            lambda: self.rules.fingerprint,
            detail=self.settings.metrics_detail is Detail.FULL,
        )

    def start(self) -> None:
        """Listen, and begin to load."""
        settings = self.settings
        computer = Computer(
            self.backlog,
            self.counters,
            settings.batch_rows,
            self.log,
            clock_us,
            ComputeSpans(self.tracer, self.counters).tell,
        )
        self.publish()
        self.loader.assign(settings.assignment)
        bodies = [computer.run, self.loader.run, self.links.accept, self.links.beat]
        if self.scrapes is not None:
            bodies.append(self.scrapes.run)
            self.log("metrics", address=self.scrapes.address)
        for body in bodies:
            threading.Thread(target=self._live, args=(body,), daemon=True).start()
        self.control.start()
        if self.control.health is not None:
            self.log("health", address=self.control.health)
        self.log(
            "listening",
            link=self.links.address,
            control=self.control.address,
            worker=self.identity.worker,
            incarnation=self.identity.incarnation,
        )

    def drain(self) -> None:
        """Take no new work, wait until routers have gone elsewhere, and end."""
        self.draining = True
        self.publish()
        self.log("draining", rows=self.backlog.rows)
        began_us = clock_us()
        until_us = began_us + int(self.settings.drain_s * 1e6)
        while self._busy(began_us) and clock_us() < until_us:
            time.sleep(_LOOK_S)
        left = self.backlog.rows
        self.loader.stop()
        self.links.stop(_FLUSH_S)
        self.backlog.end()
        self.control.stop(_FLUSH_S)
        self.tracer.close()
        self.log("ended", rows_left=left, counters=_one_line(self.counters))

    def publish(self) -> None:
        """Tell routers and health checks what is so now; called whenever it may have changed.

        Who is ready is in an inventory already, and who drains is no longer ready.
        """
        with self._publishing:
            inventory = self.inventory()
            is_ready = ready(self.loader.states(), draining=self.draining)
            if not is_ready:
                self.control.set_ready(False)
            if self.links.publish(LinkFrame(inventory=inventory)):
                self.log("inventory", experts=[s.expert_id for s in inventory.servable])
            if is_ready:
                self.control.set_ready(True)

    def inventory(self) -> Inventory:
        return make_inventory(
            self.identity,
            self.loader.states(),
            self.settings.dtype,
            self.rules.fingerprint,
            draining=self.draining,
        )

    def heartbeat(self) -> LinkFrame:
        counted = self.counters.snapshot()
        beat = Heartbeat(
            queued_rows=self.backlog.rows,
            busy_us=counted.busy_us,
            rows=counted.rows,
            queued_attempts=counted.queued_attempts,
            queue_us=counted.queue_us,
        )
        return LinkFrame(heartbeat=beat)

    def describe(self) -> DescribeWorkerResponse:
        return DescribeWorkerResponse(
            inventory=self.inventory(),
            assigned=[assigned_state(*pair) for pair in self.loader.states()],
            counters=self.counters.snapshot(),
        )

    def _live(self, body: Callable[[], None]) -> None:
        """Run a thread's body; a worker that has lost one must not look alive.

        Routers see its links break, and the kubelet starts it again.
        """
        try:
            body()
        except BaseException:
            self.log("died", reason=traceback.format_exc())
            os._exit(1)

    def _busy(self, drain_began_us: int) -> bool:
        """Tell whether rows wait, or routers still ask."""
        last_us = max(self.intake.last_us, drain_began_us)
        return self.backlog.rows > 0 or clock_us() - last_us < IDLE_S * 1e6


def _guards(settings: Settings, log: Log) -> tuple[links.Guard | None, control.Guard | None]:
    """Return what guards links and control, if anything does. Raises BadTls."""
    if settings.tls is None:
        return None, None
    certificate = Folder(settings.tls, lambda reason: log("certificate_not_read", reason=reason))
    above = control.Guard(certificate, settings.operator, settings.health)
    return links.Guard(certificate, settings.routers), above


def _one_line(counters: Counters) -> str:
    seen = counters.snapshot()
    return ",".join(f"{field.name}:{value}" for field, value in seen.ListFields())


def _tracer(settings: Settings) -> Tracer:
    about = {
        "service.instance.id": settings.name,
        "k8s.pod.name": settings.name,
        "k8s.node.name": settings.node,
        "moe.mixture": settings.mixture,
    }
    return tracer_of(settings.tracing, "moe-worker", about)


def run(settings: Settings, log: Log) -> int:
    """Run a worker until SIGTERM or SIGINT; return the exit status.

    Raises CannotTrace, NoDevice.
    """
    device = find(settings.device)
    log("device", device=told(device))
    worker = Worker(settings, log, _tracer(settings), device)
    torch.set_num_threads(1)
    asked_to_end = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: asked_to_end.set())
    worker.start()
    asked_to_end.wait()
    worker.drain()
    return 0
