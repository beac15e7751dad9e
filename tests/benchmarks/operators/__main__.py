"""`python -m tests.benchmarks.operators`: the operator against a plain one, with many objects.

A real kube-apiserver and etcd; stand-ins for nodes and routers. Beside the operator a plain kopf
operator (an index, timers, an update handler) on the same objects. *start*: from nothing until all
tables are complete (for the operator that includes children, pods of stand-ins and all that makes
an expert routable; the plain one only writes its ConfigMaps). *restart*: until a table has what
was asked for while nobody ran. *change*: from the request to change an Expert's version until the
table that has it arrived at a watcher. *rollback*: from an Override on a warm version likewise.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import kopf
import yaml

from moe_operator import access
from moe_operator.cluster import ApiError
from moe_operator.kinds import KINDS, Body, Kind
from moe_operator.rest import ApiServer
from tests.benchmarks.operators import ordinary, ours
from tests.benchmarks.operators.crowd import A_TABLE, Crowd
from tests.benchmarks.operators.figures import Figures, head
from tests.benchmarks.operators.measure import Bench, Versions
from tests.benchmarks.operators.process import Program
from tests.benchmarks.operators.written import Written
from tests.kube.fixtures import ROOT
from tests.kube.server import ADMIN_TOKEN, KubeServer
from tests.operator.kube.nodes import Nodes
from tests.operator.kube.speakers import speaking
from tests.operator.kube.stage import install

_CONNECTIONS = 16


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--sizes", default="10,100,1000", help="numbers of Experts (10,100,1000)")
    add("--seconds", type=float, default=600.0, help="for everything (600)")
    add("--each", type=float, default=240.0, help="seconds for one operator at one size (240)")
    given = parser.parse_args(arguments)
    sizes = [int(size) for size in given.sizes.split(",")]
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        found = asyncio.run(_run(Path(name), sizes, given.each, time.monotonic() + given.seconds))
    print(f"{_conditions(load)}\n")
    print(head())
    for figures in found:
        print(figures.row())


async def _run(folder: Path, sizes: Sequence[int], each_s: float, end: float) -> list[Figures]:
    found: list[Figures] = []
    crds = [yaml.safe_load(path.read_text()) for path in sorted((ROOT / "crds").glob("*.yaml"))]
    with KubeServer(ROOT / ".moe" / "bin", folder) as server:
        await asyncio.to_thread(server.install_crds, crds)
        await asyncio.to_thread(install, server)
        await asyncio.to_thread(ordinary.install, server)
        for size in sizes:
            found += await _size(server, folder, size, each_s, end)
    return found


async def _size(
    server: KubeServer, folder: Path, size: int, each_s: float, end: float
) -> list[Figures]:
    """Measure both operators, one after the other, on objects that are made for them."""
    namespace, crowd = f"crowd-{size}", Crowd(size)
    await asyncio.to_thread(server.create_namespace, namespace)

    def admin() -> kopf.ConnectionInfo:
        certificate = str(server.certificate)
        return kopf.ConnectionInfo(server=server.url, ca_path=certificate, token=ADMIN_TOKEN)

    async with access.open_session(admin, _CONNECTIONS) as session:
        api = ApiServer(session, server.url)
        await _create(api, namespace, crowd)
        nodes = Nodes(api, namespace, f"127.{os.getpid() % 250 + 1}", at_once=_CONNECTIONS)
        bench = partial(_bench, server, api, namespace, crowd, folder)
        limit = partial(_limited, each_s, end)
        async with speaking(nodes), bench(ours.PROGRAM, ours.KIND, ours.asked, nodes) as one:
            await limit(one.figures, partial(ours.measure, one, nodes))
        async with bench(ordinary.PROGRAM, ordinary.KIND, ordinary.asked) as other:
            await limit(other.figures, partial(ordinary.measure, other))
    return [one.figures, other.figures]


async def _create(api: ApiServer, namespace: str, crowd: Crowd) -> None:
    async def create(body: Body) -> None:
        meta = {**body["metadata"], "namespace": namespace}
        await api.create(KINDS[str(body["kind"])], {**body, "metadata": meta})

    await asyncio.gather(*(create(body) for body in [*crowd.parents(), *crowd.experts()]))


@asynccontextmanager
async def _bench(
    server: KubeServer,
    api: ApiServer,
    namespace: str,
    crowd: Crowd,
    folder: Path,
    program: Program,
    kind: Kind,
    asked: Versions,
    nodes: Nodes | None = None,
) -> AsyncIterator[Bench]:
    written = Written(api, kind, namespace)
    if nodes is not None:
        written.seen = lambda tables: nodes.see(tables.values())
    figures = Figures(crowd.count, program.name)
    following = asyncio.create_task(written.run())
    try:
        yield Bench(server, api, namespace, crowd, program, written, asked, figures, folder)
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def _limited(
    each_s: float, end: float, figures: Figures, measure: Callable[[], Awaitable[None]]
) -> None:
    """Cut off what takes too long, or fails, and note that; other measurements go on."""
    seconds, since = min(each_s, end - time.monotonic()), time.monotonic()
    try:
        async with asyncio.timeout(seconds):
            await measure()
    except TimeoutError:
        figures.ended = f"cut off after {max(0.0, seconds):.0f} s"
    except (ApiError, RuntimeError) as error:
        figures.ended = f"ended after {time.monotonic() - since:.0f} s: {error}"
    print(figures.row(), file=sys.stderr, flush=True)


def _conditions(load: float) -> str:
    cores, nice = os.cpu_count(), os.nice(0)
    return (
        f"{cores} cores of {platform.machine()}, Python {platform.python_version()}, nice {nice}; "
        f"load average {load:.1f} before and {os.getloadavg()[0]:.1f} after; API server, etcd and "
        f"stand-ins on the same cores. At most {A_TABLE} experts a mixture."
    )


if __name__ == "__main__":
    main()
