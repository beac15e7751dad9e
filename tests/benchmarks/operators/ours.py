"""The operator of this project: its children stand in, routers answer it over gRPC."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Mapping

from moe_operator.cluster import ApiError
from moe_operator.kinds import OVERRIDE, ROUTING_TABLE, Body
from tests.benchmarks.operators.crowd import artifact
from tests.benchmarks.operators.measure import Bench
from tests.benchmarks.operators.process import Program, Running
from tests.operator.engine.bodies import override
from tests.operator.kube.nodes import Nodes
from tests.operator.kube.stage import ACCOUNT

IMAGES = ("--worker-image", "worker", "--router-image", "router")
PORTS = ("--health-port", "0", "--metrics-port", "0")
PROGRAM = Program("moeops", (sys.executable, "-m", "moe_operator", *IMAGES, *PORTS), ACCOUNT)
KIND = ROUTING_TABLE
_TURN_S = 0.3


def asked(tables: Mapping[str, Body]) -> dict[str, str]:
    """Return the version of each expert that is on trial, or was last, else the stable one."""
    return {
        row["expertId"]: row["rollout"]["target"]["version"] if "rollout" in row else said
        for row, said in _rows(tables)
    }


def stable(tables: Mapping[str, Body]) -> dict[str, str]:
    return {row["expertId"]: said for row, said in _rows(tables)}


def _rows(tables: Mapping[str, Body]) -> list[tuple[Body, str]]:
    rows = [row for table in tables.values() for row in table["spec"]["experts"]]
    return [(row, (row.get("stable") or {}).get("version", "")) for row in rows]


async def measure(bench: Bench, nodes: Nodes) -> None:
    """Fill in the figures."""
    tables = bench.written.tables

    def complete() -> bool:
        gated = [table for table in tables.values() if table["spec"]["gates"]]
        served = stable(tables)
        all_gated = len(gated) == len(bench.crowd.mixtures)
        return all_gated and len(served) == bench.crowd.count and all(served.values())

    with bench.running() as process:
        async with tending(nodes):
            await bench.start(process, complete)
        await bench.idle(process)
        wanted = await bench.change(process, "v2-")
        async with tending(nodes, wanted):
            bench.say("promotes")
            await bench.until(process, lambda t: wanted.items() <= stable(t).items())
            await bench.quiet(process)
        bench.say("rolls back")
        used = process.cpu_s
        for name, version in wanted.items():
            bench.figures.rollback_s.append(await _roll_back(bench, process, name, version))
            await asyncio.sleep(_TURN_S)
        await bench.quiet(process)
        bench.figures.rollback_cpu_s = process.cpu_s - used
        bench.figures.peak_mb = process.peak_mb
    await bench.restart()


async def _roll_back(bench: Bench, process: Running, name: str, version: str) -> float:
    """Write what `kubectl moe rollback` writes; return how long a table took, in seconds."""
    body = override(f"back-{name}", name, "Serve", version="v1", insteadOf=version)
    meta = {**body["metadata"], "namespace": bench.namespace}
    since = time.perf_counter()
    await bench.api.create(OVERRIDE, {**body, "metadata": meta})
    return await bench.until(process, lambda tables: stable(tables)[name] == "v1") - since


@contextlib.asynccontextmanager
async def tending(nodes: Nodes, used: Mapping[str, str] | None = None) -> AsyncIterator[None]:
    """Let nodes do what there is to do, and clients use these versions, for as long as it lasts.

    At other times there is nothing to do, and the processors are the operator's.
    """

    async def tend() -> None:
        while True:
            with contextlib.suppress(ApiError):  # an object went meanwhile
                await nodes.step()
            for name, version in (used or {}).items():
                nodes.count(artifact(name, version)["sha256"], requests=100, rows=1000)
                nodes.count(artifact(name, "v1")["sha256"], requests=100, rows=1000)
            await asyncio.sleep(_TURN_S)

    task = asyncio.create_task(tend())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
