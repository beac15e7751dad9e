"""`python -m tests.benchmarks.tracing`: what traces cost a router: off, some, all.

Four routers, each a process of its own, over one worker, asked in turns over streams that stay
open; two of them are off, and what they differ by is noise. Spans go to a collector in this
process. Processor time is that of the router alone, its exporting thread included. What an off
router has more than one without any tracing, a call for each request, is timed by itself.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from statistics import median

import grpc
import numpy as np

from moe_core.tracing import Context, Tracer, Untraced
from moeops.v1.router_pb2 import DispatchRequest, RowsResponse
from moeops.v1.router_pb2_grpc import RouterStub
from tests.router import process as routers
from tests.router.process import RouterProcess
from tests.support.artifacts import write_expert
from tests.support.collector import collector
from tests.support.cpu import cpu_s
from tests.support.dispatching import dispatch_request
from tests.support.tables import TableFile, expert, gate, table, version
from tests.worker import process as workers

IDS = ("e0", "e1", "e2", "e3")
HIDDEN = 256
ROW = "{:<22}{:>10}{:>10}{:>12}{:>12}{:>12}"
_SAMPLER = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio"}
_WAYS = (("off", None), ("off, another", None), ("1% sampled", "0.01"), ("all sampled", "1"))


@dataclass
class Asked:
    """One router, and a stream to it on which one request is under way at a time."""

    name: str
    router: RouterProcess
    request: DispatchRequest
    p50_us: list[float] = field(default_factory=list)
    p99_us: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._outbox: SimpleQueue[DispatchRequest | None] = SimpleQueue()
        self._channel = grpc.insecure_channel(self.router.address)
        sent = iter(self._outbox.get, None)
        self._answers: Iterator[RowsResponse] = RouterStub(self._channel).Dispatch(sent)

    def turn(self, requests: int) -> None:
        """Ask so often, and note times."""
        took = []
        before_s = cpu_s(self.router.process.pid)
        for _ in range(requests):
            began = time.perf_counter()
            self._outbox.put(self.request)
            while not next(self._answers).request_id:
                pass
            took.append((time.perf_counter() - began) * 1e6)
        self.cpu_us.append((cpu_s(self.router.process.pid) - before_s) / requests * 1e6)
        p50, p99 = np.percentile(took, (50, 99))
        self.p50_us.append(float(p50))
        self.p99_us.append(float(p99))

    def close(self) -> None:
        self._outbox.put(None)
        self._channel.close()


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9, help="of turns (9)")
    parser.add_argument("--requests", type=int, default=1000, help="in a turn (1000)")
    parser.add_argument("--rows", type=int, default=4, help="of a request (4)")
    given = parser.parse_args(arguments)
    load = os.getloadavg()[0]
    print(f"{os.cpu_count()} cores, load {load:.1f} before; medians of {given.rounds} rounds\n")
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        ways = _started(Path(name), given.rows, stack)
        for way in ways:
            way.turn(given.requests)
        for way in ways:
            way.cpu_us, way.p50_us, way.p99_us = [], [], []
        for number in range(given.rounds):
            for way in ways if number % 2 else reversed(ways):
                way.turn(given.requests)
    _print(ways)
    print(f"\nThe call by which a request is not traced, off: {_call_ns():.0f} ns")


def _started(directory: Path, rows: int, stack: ExitStack) -> list[Asked]:
    experts = [write_expert(directory, hidden_size=HIDDEN, seed=n) for n in range(len(IDS))]
    assigned = [one.assigned(name) for name, one in zip(IDS, experts, strict=True)]
    named = [
        expert(name, version("v1", one.sha256, one.uri))
        for name, one in zip(IDS, experts, strict=True)
    ]
    file = TableFile(directory / "table.yaml", table(named, [gate(IDS)], hidden_size=HIDDEN))
    request = dispatch_request(file.table, [[n % 4, (n + 1) % 4] for n in range(rows)])
    collected = stack.enter_context(collector())
    worker = stack.enter_context(workers.spawn(assigned, HIDDEN, name="w"))
    started = []
    for name, ratio in _WAYS:
        sampler = {**_SAMPLER, "OTEL_TRACES_SAMPLER_ARG": ratio} if ratio else {}
        around = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{collected.address}", **sampler}
        options = {"mixture": "tiny", "table_file": str(file.path), "workers": worker.link}
        router = stack.enter_context(routers.spawn(around if ratio else {}, **options))
        router.wait_until_routable([one.sha256 for one in experts])
        started.append(Asked(name, router, request))
        stack.callback(started[-1].close)
    return started


def _print(ways: Sequence[Asked]) -> None:
    off = ways[0]
    print(ROW.format("", "p50 us", "p99 us", "p50 more", "CPU us", "CPU more"))
    for way in ways:
        more = median(b / a - 1 for a, b in zip(off.p50_us, way.p50_us, strict=True))
        cpu = median(b / a - 1 for a, b in zip(off.cpu_us, way.cpu_us, strict=True))
        print(
            ROW.format(
                way.name,
                f"{median(way.p50_us):.0f}",
                f"{median(way.p99_us):.0f}",
                f"{more:+.1%}",
                f"{median(way.cpu_us):.0f}",
                f"{cpu:+.1%}",
            )
        )


def _call_ns(calls: int = 200_000) -> float:
    tracer: Tracer = Untraced()
    request = DispatchRequest()
    around: Context | None = None
    began = time.perf_counter()
    for _ in range(calls):
        parent = Context.parse(request.traceparent) if request.traceparent else around
        tracer.begin("request", parent, time.monotonic())
    return (time.perf_counter() - began) / calls * 1e9


if __name__ == "__main__":
    main()
