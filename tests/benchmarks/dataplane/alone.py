"""The whole layer in one process, by several implementations, beside a hop."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from moe_client import aio, use_local
from tests.benchmarks.dataplane.hops import asking
from tests.benchmarks.dataplane.table import Bench, Row
from tests.benchmarks.dispatch import Given, load_model, local_ways
from tests.benchmarks.measure import in_turns


@torch.inference_mode()
def alone(bench: Bench, path: Path) -> Iterator[Row]:
    """Measure what the layer takes where all experts are at hand."""
    here = load_model(path)
    use_local(here)
    client = aio.RouterClient(bench.served.addresses)
    for rows in (1, 16, 256, 1024):
        given = Given.random(rows)
        ways = {"through a router": asking(bench, client, given), **local_ways(here, given)}
        timings = in_turns(ways, rounds=bench.rounds, seconds=bench.seconds)
        said = [f"{name} {timing.p50_us:,.0f}" for name, timing in timings.items()]
        yield Row(f"one layer, T = {rows}, µs", ", ".join(said))
    bench.loop.run_until_complete(client.close())
