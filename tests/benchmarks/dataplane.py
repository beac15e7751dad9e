"""`make bench-dataplane`: what a hop costs, beside its floors and Ray Serve, in one run.

One MoE layer in bfloat16 through a real router to two real workers with half of the experts each,
all on this host, each on a core that the table names; Ray has all cores. The floors of a hop are an
echo of the same bytes over gRPC, one of the busier worker's share over a socket, and the compute of
the busier worker's experts in this process; what is above their sum is the router's. Ways are
measured in turns.
`--ray PYTHON` names a Python that has ray[serve]; `--write` puts the table into docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from collections.abc import Sequence as Many
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from moe_artifacts.artifact import read_expert
from moe_client import Choice, RouterClient, Rows, Sequence, aio, use_local
from moe_client.steady import SteadyLoad
from moe_client.tensors import to_numpy
from moe_core.dtypes import BFLOAT16
from moe_core.exactness import machine
from moe_core.kernel import ExpertKernel
from moe_worker.expert import Rules, load
from tests.benchmarks import giants
from tests.benchmarks.cores import Cores
from tests.benchmarks.dispatch import HIDDEN, TOP_K, Given, checkpoint, load_model, streams
from tests.benchmarks.echo import EchoProcess, GrpcEcho, LinkEcho, message
from tests.benchmarks.giants import GiantsProcess
from tests.benchmarks.measure import in_turns
from tests.client.served import Served, embedded, serve
from tests.support.program import Program, running

ROOT: Final = Path(__file__).resolve().parents[2]
PAGE: Final = ROOT / "docs" / "benchmarks.md"
_TABLE: Final = re.compile(r"(?<=<!-- dataplane -->\n).*(?=<!-- /dataplane -->)", re.DOTALL)
_HEADERS: Final = 200  # bytes of a message besides rows, indices and weights, about


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table; `kept` is None where there is no goal."""

    what: str
    measured: str
    goal: str = ""
    kept: bool | None = None

    def line(self) -> str:
        verdict = {None: "", True: "kept", False: "missed"}[self.kept]
        return f"| {self.what} | {self.measured} | {self.goal} | {verdict} |"


@dataclass(frozen=True, slots=True)
class Bench:
    """What is measured, and for how long."""

    served: Served
    echo: EchoProcess
    loop: asyncio.AbstractEventLoop
    cores: Cores
    rounds: int
    seconds: float

    def wait_for(self, ask: Callable[..., Coroutine[Any, Any, object]], *arguments: Any) -> object:
        """Ask, and wait for the answer."""
        return self.loop.run_until_complete(ask(*arguments))


def main(arguments: Many[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9, help="of turns (9)")
    parser.add_argument("--seconds", type=float, default=0.5, help="of each way in a round (0.5)")
    parser.add_argument("--ray", metavar="PYTHON", help="a Python that has ray[serve]")
    parser.add_argument("--write", action="store_true", help=f"into {PAGE.relative_to(ROOT)}")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    before, cores = os.getloadavg()[0], Cores.shared_by(workers=2)
    with tempfile.TemporaryDirectory() as name:
        rows = list(_measured(Path(name), cores, given.rounds, given.seconds, given.ray))
    conditions = (
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {machine()}, "
        f"Python {platform.python_version()}, load {before:.1f} before; H = 512, I = 1,024, "
        f"8 experts, top-2, bfloat16, 2 workers, Exact; {cores}; medians of {given.rounds} rounds "
        f"of {given.seconds:g} s; {time.strftime('%Y-%m-%d')}."
    )
    head = "| what | measured | goal | |\n|---|---|---|---|\n"
    table = f"{conditions}\n\n{head}" + "".join(f"{row.line()}\n" for row in rows)
    print(f"\n{table}")
    if given.write:
        PAGE.write_text(_TABLE.sub(lambda _: table, PAGE.read_text()))


def _measured(
    directory: Path, cores: Cores, rounds: int, seconds: float, ray: str | None
) -> Iterator[Row]:
    path = checkpoint(directory / "checkpoint")
    loop = asyncio.new_event_loop()
    echoes = running(EchoProcess, ["tests.benchmarks.echo"], os.environ)
    with serve(path, directory, dtype="BFloat16", spread=True) as served, echoes as echo:
        cores.pin((*served.routers, echo), served.workers)
        bench = Bench(served, echo, loop, cores, rounds, seconds)
        yield from _told(hops(bench))
        yield from _told(inside(bench))
        yield from _told(rates(bench, path, ray))
        yield from _told(tails(bench))


def _told(rows: Iterator[Row]) -> Iterator[Row]:
    for row in rows:
        print(row.line(), flush=True)
        yield row


def hops(bench: Bench) -> Iterator[Row]:
    """Measure a hop and its floors."""
    client = aio.RouterClient(bench.served.addresses)
    grpc_port, link_port = bench.echo.told
    link = LinkEcho(link_port)

    async def stream() -> GrpcEcho:
        return GrpcEcho(grpc_port)

    over_grpc = bench.loop.run_until_complete(stream())
    goals: dict[int, float] = {1: 200, 16: 250}
    for rows in (1, 16, 256, 1024):
        given = Given.random(rows)
        ask, compute, share = _asking(bench, client, given), *_computing(bench.served, given)
        body = rows * HIDDEN * 2
        sent = message(body + rows * TOP_K * 8 + _HEADERS, body + _HEADERS)
        part = message(share * HIDDEN * 2 + _HEADERS, share * HIDDEN * 2 + _HEADERS)
        ways: dict[str, Callable[[], object]] = {
            "hop": ask,
            "grpc": partial(bench.wait_for, over_grpc.ask, sent),
            "link": partial(link.ask, part),
            "compute": compute,
        }
        took = {
            name: timing.p50_us
            for name, timing in in_turns(ways, rounds=bench.rounds, seconds=bench.seconds).items()
        }
        floor = took["grpc"] + took["link"] + took["compute"]
        added = took["hop"] - floor
        parts = ", ".join(f"{name} {took[name]:,.0f}" for name in ("grpc", "link", "compute"))
        said = f"{added:+,.0f} µs: hop {took['hop']:,.0f} − ({parts})"
        if rows in goals:
            yield Row(
                f"added by the router, T = {rows}", said, f"≤ {goals[rows]:.0f} µs",
                added <= goals[rows],
            )  # fmt: skip
        else:
            yield Row(
                f"added by the router, T = {rows}", f"{added / floor:+.0%}; {said}", "≤ 25% on top",
                added <= 0.25 * floor,
            )  # fmt: skip
    bench.loop.run_until_complete(over_grpc.close())
    bench.loop.run_until_complete(client.close())
    link.close()


def inside(bench: Bench) -> Iterator[Row]:
    """Measure a hop with the router in this process, beside the same through the other one."""
    with ExitStack() as stack:
        with bench.cores.anywhere():
            router = stack.enter_context(embedded(bench.served))
        near = stack.enter_context(RouterClient(router))
        far = aio.RouterClient(bench.served.addresses)
        for rows in (1, 16):
            given = Given.random(rows)
            rows_, choice = _question(near.describe().gates[0].sha256, given)
            ways: dict[str, Callable[[], object]] = {
                "inside": partial(near.dispatch, rows_, choice),
                "hop": _asking(bench, far, given),
                "compute": _computing(bench.served, given)[0],
            }
            timings = in_turns(ways, rounds=bench.rounds, seconds=bench.seconds)
            took = {name: timing.p50_us for name, timing in timings.items()}
            yield Row(
                f"whole hop with the router in the client's process, T = {rows}",
                f"{took['inside']:,.0f} µs, of which compute {took['compute']:,.0f}; "
                f"through a router elsewhere {took['hop']:,.0f}",
                "≤ 200 µs" if rows == 1 else "",
                took["inside"] <= 200 if rows == 1 else None,
            )
        bench.loop.run_until_complete(far.close())


def _asking(bench: Bench, client: aio.RouterClient, given: Given) -> Callable[[], object]:
    gate = bench.loop.run_until_complete(client.describe()).gates[0]
    rows, choice = _question(gate.sha256, given)
    return partial(bench.wait_for, client.dispatch, rows, choice)


def _question(gate: str, given: Given) -> tuple[Rows, Choice]:
    choice = Choice(gate, to_numpy(given.index.to(torch.int32)), to_numpy(given.weights))
    hidden = to_numpy(given.hidden)
    return Rows(0, hidden, (Sequence("bench", len(hidden)),)), choice


def _computing(served: Served, given: Given) -> tuple[Callable[[], object], int]:
    """Return what the busier worker computes of these rows, and its share of (row, slot) pairs."""
    names = [entry.name for entry in served.index.entries if entry.role is not None]
    paths = {e.name: Path(e.uri.removeprefix("file://")) for e in served.index.entries}
    rules, work = Rules(BFLOAT16, exact=True), []
    for first in (0, 1):
        mine = []
        for name in names[first::2]:
            rows = given.hidden[(given.index == names.index(name)).any(1)]
            if len(rows):
                mine.append((load(read_expert(paths[name]), [0], rules)[0], rows))
        work.append(mine)
    busier: list[tuple[ExpertKernel, torch.Tensor]] = max(
        work, key=lambda mine: sum(len(rows) for _, rows in mine)
    )
    return lambda: [kernel(rows) for kernel, rows in busier], sum(len(r) for _, r in busier)


def rates(bench: Bench, path: Path, ray: str | None) -> Iterator[Row]:
    """Measure rows per second, and what they cost of processors."""
    given, addresses = Given.random(16), bench.served.addresses
    programs: list[Program] = [*bench.served.routers, *bench.served.workers]
    before, began_s, cpu_s = _cpu(programs), time.perf_counter(), time.process_time()
    asking = streams(addresses, given, 8, bench.rounds, 4 * bench.seconds)
    rate = bench.loop.run_until_complete(asking)
    elapsed = time.perf_counter() - began_s
    after, own = _cpu(programs), time.process_time() - cpu_s
    spent = [b - a for a, b in zip(before, after, strict=True)]
    done = rate * elapsed
    per_thousand = spent[0] / (done / 16) * 1000
    yield Row("router CPU per 1,000 requests, T = 16", f"{per_thousand:.2f} s", "≤ 0.25 s",
              per_thousand <= 0.25)  # fmt: skip
    here: Any = load_model(path)
    use_local(here)
    layer = here.model.layers[0].mlp.experts

    def alone() -> None:
        layer(given.hidden, given.index, given.weights)

    with torch.inference_mode():
        one = in_turns({"alone": alone}, rounds=bench.rounds, seconds=bench.seconds)["alone"]
    per_core, alone_rate = done / (sum(spent) + own), 16 * one.per_s
    yield Row("rows per core-second, T = 16, 8 callers, against one process",
              f"{per_core:,.0f} of {alone_rate:,.0f} ({per_core / alone_rate:.2f})",
              "≥ 0.6", per_core >= 0.6 * alone_rate)  # fmt: skip
    yield from _beside_ray(bench, path, rate, ray)


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
    yield Row("rows/s, T = 16, 8 callers: experts against Ray's experts",
              f"{rate:,.0f} against {seen['experts']:,.0f} (Ray Serve {seen['version']})",
              "≥ 10×", rate >= 10 * seen["experts"])  # fmt: skip
    yield Row("rows/s, T = 16, 8 callers: echo against Ray's echo",
              f"{ours:,.0f} against {theirs:,.0f} ({said}); {floor}",
              "≥ 60,000 and ≥ 10×", ours >= max(60_000, 10 * theirs))  # fmt: skip


def _our_echo(bench: Bench, path: Path) -> float:
    """Return rows/s through a router to workers that compute nothing."""
    module = "tests.benchmarks.echo_worker"
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        serving = serve(path, directory, dtype="BFloat16", spread=True, worker_module=module)
        with serving as served:
            bench.cores.pin(served.routers, served.workers)
            asking = streams(served.addresses, Given.random(16), 8, bench.rounds, bench.seconds)
            return bench.loop.run_until_complete(asking)


async def _echo_rate(bench: Bench) -> float:
    body = 16 * HIDDEN * 2
    sent = message(body + 16 * TOP_K * 8 + _HEADERS, body + _HEADERS)
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


def tails(bench: Bench) -> Iterator[Row]:
    """Measure how far the slowest are from the middle."""
    addresses, whole_s = bench.served.addresses, bench.rounds * bench.seconds
    with SteadyLoad(addresses, sessions=8, rows=16) as load:
        time.sleep(whole_s)
        most = load.report().requests / load.report().seconds
    with SteadyLoad(addresses, sessions=8, rows=16, requests_per_s=0.7 * most) as load:
        time.sleep(2 * whole_s)
        at = load.report()
    ratio = at.p99_ms / at.p50_ms
    yield Row("p99/p50 at 70% load, T = 16",
              f"{ratio:.1f} ({at.p50_ms:.1f} and {at.p99_ms:.1f} ms at {0.7 * most:,.0f}/s)",
              "≤ 1.7", ratio <= 1.7)  # fmt: skip
    small: dict[str, float] = {}
    asking = running(GiantsProcess, ["tests.benchmarks.giants", addresses[0]], os.environ)
    ways: dict[str, AbstractContextManager[object]] = {"alone": nullcontext(), "beside": asking}
    for name, beside in ways.items():
        with beside, SteadyLoad(addresses, sessions=2, rows=1, requests_per_s=40) as load:
            time.sleep(2 * whole_s)
            small[name] = load.report().p99_ms
    times = small["beside"] / small["alone"]
    yield Row(f"p99 of requests of 1 row beside ones of {giants.ROWS:,}",
              f"{times:.1f}× ({small['alone']:.1f} and {small['beside']:.1f} ms)", "≤ 2×",
              times <= 2)  # fmt: skip


def _cpu(programs: Many[Program]) -> list[float]:
    """Return the processor time of each, in seconds."""
    ticks = os.sysconf("SC_CLK_TCK")
    found = []
    for program in programs:
        stat = Path(f"/proc/{program.process.pid}/stat").read_text().rpartition(")")[2].split()
        found.append((int(stat[11]) + int(stat[12])) / ticks)
    return found


if __name__ == "__main__":
    main()
