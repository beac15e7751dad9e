"""How far the slowest requests are from the middle, alone and beside giants."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

from moe_client.steady import SteadyLoad
from tests.benchmarks import giants
from tests.benchmarks.dataplane.table import Bench, Row
from tests.benchmarks.giants import GiantsProcess
from tests.support.program import running


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
