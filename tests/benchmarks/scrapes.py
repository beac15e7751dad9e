"""`python -m tests.benchmarks.scrapes`: what metrics cost a router: a scrape, and each request.

A scrape is put together in this process, piece by piece as the router does it, of a mixture of 58
layers of 256 experts all of which have counted. A request is one of the engine over workers in
memory, with and without what is counted for metrics alone, in turns. Figures depend on what else
runs here; compare those of one run only.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from collections.abc import Sequence as Many
from statistics import median

import numpy as np
from prometheus_client.exposition import choose_encoder

from moe_core.exposition import pieces
from moe_router.counters import Counters
from tests.router.bench import Bench
from tests.router.test_router_metrics import LAYERS, Asked, fed, large, small
from tests.support.dispatching import dispatch_request
from tests.support.scrape import ACCEPT

_CASES = (
    ("256 experts over all layers", False, False),
    ("256 experts over all layers, Full", False, True),
    ("14,848 experts of one layer", True, False),
    ("14,848 experts of one layer, Full", True, True),
)


class Uncounted(Counters):
    """Counters without what is counted for metrics alone."""

    def timed(self, began_s: float, chosen_s: float, answered_s: float, ended_s: float) -> None:
        pass


def main(arguments: Many[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9, help="of turns (9)")
    parser.add_argument("--requests", type=int, default=1000, help="in a turn (1000)")
    given = parser.parse_args(arguments)
    load = os.getloadavg()[0]
    print(f"{os.cpu_count()} cores, load {load:.1f} before; medians of {given.rounds} rounds\n")
    print(
        f"{'scrape of a router, ' + str(LAYERS) + ' layers':<38}{'kB':>7}{'ms':>8}{'piece ms':>10}"
    )
    for name, apart, detail in _CASES:
        _print_scrape(name, fed(Asked.of(large(apart=apart), detail=detail)), given.rounds)
    print(f"\n{'request of the engine, CPU us':<38}{'rows':>5}{'without':>9}{'with':>8}{'more':>8}")
    for rows in (1, 16):
        without, counted = asyncio.run(_requests(rows, given.rounds, given.requests))
        more = median(b - a for a, b in zip(without, counted, strict=True))
        print(f"{'':<38}{rows:>5}{median(without):>9.1f}{median(counted):>8.1f}{more:>+8.2f}")


def _print_scrape(name: str, asked: Asked, rounds: int) -> None:
    encode, _ = choose_encoder(ACCEPT)
    took, longest, size = [], [], 0
    for _ in range(rounds):
        parts, slowest, began = list[bytes](), 0.0, time.process_time()
        before = began
        for piece in pieces(asked, encode):
            now = time.process_time()
            slowest = max(slowest, now - before)
            parts.append(piece)
            before = now
        took.append(time.process_time() - began)
        longest.append(slowest)
        size = sum(map(len, parts))
    ms = median(took) * 1e3, median(longest) * 1e3
    print(f"{name:<38}{size / 1e3:>7.0f}{ms[0]:>8.1f}{ms[1]:>10.2f}")


async def _requests(rows: int, rounds: int, requests: int) -> tuple[list[float], list[float]]:
    """Return microseconds of processor time of a request in each round, without and with."""
    request = dispatch_request(small(), [[0, 1]] * rows, hidden=np.ones((rows, 4)))
    without, counted = Asked.of(small()).bench, Asked.of(small()).bench
    counters = without.engine.counters = Uncounted()
    without.engine._shadows._counters = counters
    taken: tuple[list[float], list[float]] = ([], [])

    async def turn(bench: Bench) -> float:
        before = time.process_time()
        for _ in range(requests):
            await bench.engine.dispatch(request)
        return (time.process_time() - before) / requests * 1e6

    for bench in (without, counted):
        await turn(bench)
    for number in range(rounds):
        order = ((0, without), (1, counted))
        for place, bench in order if number % 2 else reversed(order):
            taken[place].append(await turn(bench))
    return taken


if __name__ == "__main__":
    main()
