"""`make bench-dataplane`: what a hop costs, beside its floors and Ray Serve, in one run.

One MoE layer in bfloat16 through a real router to two real workers with half of the experts each,
all on this host, each on a core that the table names; Ray has all cores. The floors of a hop are an
echo of the same bytes over gRPC, one of the busier worker's share over a socket, and the compute of
the busier worker's experts in this process; what is above their sum is the router's. Beside
them the whole layer in one process. Ways are measured in turns.
`--ray PYTHON` names a Python that has ray[serve]; `--write` puts the table into docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import re
import tempfile
import time
from collections.abc import Iterator
from collections.abc import Sequence as Many
from pathlib import Path
from typing import Final

import torch

from moe_core.exactness import machine
from tests.benchmarks.cores import Cores
from tests.benchmarks.dataplane.alone import alone
from tests.benchmarks.dataplane.hops import hops, inside
from tests.benchmarks.dataplane.rates import ROOT, rates
from tests.benchmarks.dataplane.table import Bench, Row
from tests.benchmarks.dataplane.tails import tails
from tests.benchmarks.dispatch import checkpoint
from tests.benchmarks.echo import EchoProcess
from tests.client.served import serve
from tests.support.program import running

PAGE: Final = ROOT / "docs" / "benchmarks.md"
_TABLE: Final = re.compile(r"(?<=<!-- dataplane -->\n).*(?=<!-- /dataplane -->)", re.DOTALL)


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
        yield from _told(alone(bench, path))
        yield from _told(rates(bench, path, ray))
        yield from _told(tails(bench))


def _told(rows: Iterator[Row]) -> Iterator[Row]:
    for row in rows:
        print(row.line(), flush=True)
        yield row


if __name__ == "__main__":
    main()
