"""How far the slowest requests are from the middle, alone and beside giants."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

from moe_client.figures import Report
from moe_client.steady import SteadyLoad
from tests.benchmarks import giants
from tests.benchmarks.dataplane.table import Bench, Row
from tests.benchmarks.giants import GiantsProcess
from tests.support.program import running


def tails(bench: Bench) -> Iterator[Row]:
    """Measure how far the slowest are from the middle."""
    whole_s = bench.rounds * bench.seconds
    most = _seen(bench, whole_s, sessions=8, rows=16)
    rate = 0.7 * most.requests / most.seconds
    at = _seen(bench, 2 * whole_s, sessions=8, rows=16, requests_per_s=rate)
    ratio = at.p99_ms / at.p50_ms
    said = f"{ratio:.1f} ({at.p50_ms:.1f} and {at.p99_ms:.1f} ms at {rate:,.0f}/s)"
    yield Row("p99/p50 at 70% load, T = 16", said, "≤ 1.7", ratio <= 1.7)
    alone = _small(bench, 2 * whole_s)
    with running(GiantsProcess, ["tests.benchmarks.giants", bench.served.addresses[0]], os.environ):
        beside = _small(bench, 2 * whole_s)
    times = beside / alone
    what = f"p99 of requests of 1 row beside ones of {giants.ROWS:,}"
    yield Row(what, f"{times:.1f}× ({alone:.1f} and {beside:.1f} ms)", "≤ 2×", times <= 2)


def _small(bench: Bench, seconds: float) -> float:
    """Return the 99th percentile of requests of one row, in ms."""
    return _seen(bench, seconds, sessions=2, rows=1, requests_per_s=40).p99_ms


def _seen(
    bench: Bench, seconds: float, *, sessions: int, rows: int, requests_per_s: float | None = None
) -> Report:
    """Return how requests fare under a load of so long."""
    addresses = bench.served.addresses
    with SteadyLoad(addresses, sessions=sessions, rows=rows, requests_per_s=requests_per_s) as load:
        time.sleep(seconds)
        return load.report()
