"""Rows per second of eight callers, what they cost of processors, and Ray Serve beside that."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from collections.abc import Sequence as Many
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch

from moe_client import use_local
from tests.benchmarks.dataplane.hops import HEADERS
from tests.benchmarks.dataplane.table import Bench, Row
from tests.benchmarks.dispatch import HIDDEN, TOP_K, Given, load_model, streams
from tests.benchmarks.echo import GrpcEcho, message
from tests.benchmarks.measure import in_turns
from tests.client.served import Served, serve
from tests.support.cpu import cpu_s
from tests.support.program import Program

ROOT: Final = Path(__file__).resolve().parents[3]


@dataclass(frozen=True, slots=True)
class Spent:
    """What eight callers got, and what that took."""

    rows_per_s: float
    router_s: float  # of processors, for 1,000 requests
    rows_per_core_s: float  # of all that had a part in it, the callers too


def rates(bench: Bench, path: Path, ray: str | None) -> Iterator[Row]:
    """Measure rows per second, and what they cost of processors."""
    spent = _spent(bench, bench.served)
    yield Row(
        "router CPU per 1,000 requests, T = 16",
        f"{spent.router_s:.2f} s",
        "≤ 0.25 s",
        spent.router_s <= 0.25,
    )
    yield _per_core(bench, path, spent, "Exact", 0.6)
    with _served(bench, path, numerics="Fast") as served:
        yield _per_core(bench, path, _spent(bench, served), "Fast", 0.75)
    yield from _beside_ray(bench, path, spent.rows_per_s, ray)


def _spent(bench: Bench, served: Served) -> Spent:
    programs: list[Program] = [*served.routers, *served.workers]
    before, began_s, own_s = _cpu(programs), time.perf_counter(), time.process_time()
    asking = streams(served.addresses, Given.random(16), 8, bench.rounds, 4 * bench.seconds)
    rate = bench.loop.run_until_complete(asking)
    elapsed_s, own_s = time.perf_counter() - began_s, time.process_time() - own_s
    took = [b - a for a, b in zip(before, _cpu(programs), strict=True)]
    rows = rate * elapsed_s
    return Spent(rate, took[0] / (rows / 16) * 1000, rows / (sum(took) + own_s))


def _per_core(bench: Bench, path: Path, spent: Spent, numerics: str, goal: float) -> Row:
    given, here = Given.random(16), load_model(path)
    use_local(here, numerics=numerics)
    layer = here.model.layers[0].mlp.experts

    def alone() -> None:
        layer(given.hidden, given.index, given.weights)

    with torch.inference_mode():
        one = in_turns({"alone": alone}, rounds=bench.rounds, seconds=bench.seconds)["alone"]
    ratio = spent.rows_per_core_s / (16 * one.per_s)
    return Row(
        f"rows per core-second, T = 16, 8 callers, against one process, {numerics}",
        f"{spent.rows_per_core_s:,.0f} of {16 * one.per_s:,.0f} ({ratio:.2f})",
        f"≥ {goal:g}",
        ratio >= goal,
    )


@contextmanager
def _served(
    bench: Bench, path: Path, *, numerics: str = "Exact", module: str = "moe_worker"
) -> Iterator[Served]:
    """Serve once more, otherwise, on the same cores."""
    with tempfile.TemporaryDirectory() as name:
        serving = serve(
            path,
            Path(name),
            dtype="BFloat16",
            spread=True,
            numerics=numerics,
            worker_module=module,
        )
        with serving as served:
            bench.cores.pin(served.routers, served.workers)
            yield served


def _beside_ray(bench: Bench, path: Path, rate: float, ray: str | None) -> Iterator[Row]:
    echoed = bench.loop.run_until_complete(_echo_rate(bench))
    ours, floor = _our_echo(bench, path), f"gRPC echo of the same bytes {echoed:,.0f}"
    if ray is None:
        said = f"experts {rate:,.0f}, echo {ours:,.0f}; {floor}; Ray not run"
        yield Row("rows/s, T = 16, 8 callers", said)
        return
    site = next((ROOT / ".venv" / "lib").glob("python3*")) / "site-packages"
    around = {**os.environ, "PYTHONPATH": f"{ROOT}:{site}"}
    command = [ray, "-m", "tests.benchmarks.ray_serve", "--rounds", str(bench.rounds)]
    done = subprocess.run(
        command,
        env=around,
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=bench.cores.unpinned(),
    )
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("{")]
    seen = json.loads(line)
    theirs = max(seen["echo"], seen["echo, tuned"])
    said = f"echo {seen['echo']:,.0f}, tuned {seen['echo, tuned']:,.0f}"
    yield Row(
        "rows/s, T = 16, 8 callers: experts against Ray's experts",
        f"{rate:,.0f} against {seen['experts']:,.0f} (Ray Serve {seen['version']})",
        "≥ 10×",
        rate >= 10 * seen["experts"],
    )
    yield Row(
        "rows/s, T = 16, 8 callers: echo against Ray's echo",
        f"{ours:,.0f} against {theirs:,.0f} ({said}); {floor}",
        "≥ 60,000 and ≥ 10×",
        ours >= max(60_000, 10 * theirs),
    )


def _our_echo(bench: Bench, path: Path) -> float:
    """Return rows/s through a router to workers that compute nothing."""
    with _served(bench, path, module="tests.benchmarks.echo_worker") as served:
        asking = streams(served.addresses, Given.random(16), 8, bench.rounds, bench.seconds)
        return bench.loop.run_until_complete(asking)


async def _echo_rate(bench: Bench) -> float:
    body = 16 * HIDDEN * 2
    sent = message(body + 16 * TOP_K * 8 + HEADERS, body + HEADERS)
    calls = [GrpcEcho(bench.echo.told[0]) for _ in range(8)]

    async def call(echo: GrpcEcho, until: float) -> int:
        done = 0
        while time.perf_counter() < until:
            await echo.ask(sent)
            done += 16
        return done

    rates = []
    for _ in range(bench.rounds):
        began = time.perf_counter()
        done = sum(await asyncio.gather(*(call(c, began + bench.seconds) for c in calls)))
        rates.append(done / (time.perf_counter() - began))
    for one in calls:
        await one.close()
    return float(np.median(rates))


def _cpu(programs: Many[Program]) -> list[float]:
    """Return the processor time of each, in seconds."""
    return [cpu_s(program.process.pid) for program in programs]
