"""`python -m tests.benchmarks.chaos`: what a client notices of each fault of a worker or its link.

The acts of `tests/chaos` under steady load on one router and two workers, each act with a router of
its own. Each worker has half a core and no more, so that one that dies leaves the other nothing.
Prints failed and degraded requests, answers with other bits, times, the longest stall, and
answers in the second before the fault and in the second one after it began.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.chaos.acts import ACTS, WIRED, Act
from tests.chaos.house import Workers, house, two_workers
from tests.chaos.wire import missing, wire
from tests.support.share import NoShares, shares

WORKER_CORES = 0.5
ROW = "{:<32}{:>9}{:>8}{:>10}{:>7}{:>9}{:>9}{:>12}{:>10}{:>8}{:>8}"
HEADS = (
    "requests",
    "failed",
    "degraded",
    "wrong",
    "p50 ms",
    "p99 ms",
    "slowest ms",
    "stall ms",
    "before",
    "after",
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--requests-per-s", type=float, default=200.0, help="(200)")
    parser.add_argument("--seconds", type=float, default=4.0, help="of load after each fault (4)")
    given = parser.parse_args(arguments)
    print(ROW.format("", *HEADS))
    with tempfile.TemporaryDirectory() as name, two_workers(Path(name)) as held:
        _play_all(held, ACTS, given)
    if why := missing():
        print(f"faults of the network are left out: {why}")
        return
    with (
        tempfile.TemporaryDirectory() as name,
        wire() as made,
        two_workers(Path(name), made) as held,
    ):
        _play_all(held, WIRED, given)


def _play_all(held: Workers, acts: Sequence[Act], given: argparse.Namespace) -> None:
    pids = (held.survivor.process.pid, held.victim.process.pid)
    with ExitStack() as stack:
        try:
            stack.enter_context(shares(dict.fromkeys(pids, WORKER_CORES)))
        except NoShares as why:
            print(f"workers have all cores: {why}")
        for act in acts:
            _play(held, act, given.requests_per_s, given.seconds)


def _play(held: Workers, act: Act, requests_per_s: float, seconds: float) -> None:
    with house(held, requests_per_s=requests_per_s) as it:
        time.sleep(1)
        since_s = it.load.now()
        act.strike(it)
        time.sleep(max(seconds - (it.load.now() - since_s), 2))
        seen = it.load.report(since_s)
        before = it.load.report(since_s - 1, since_s)
        after = it.load.report(since_s + 1, since_s + 2)
        records = [one for one in it.load.records() if one.began_s >= since_s]
        wrong = sum(bool(one.different) and one.degraded_ppm == 0 for one in records)
        act.end(it)
    times = (seen.p50_ms, seen.p99_ms)
    print(
        ROW.format(
            act.name,
            seen.requests,
            seen.failed,
            seen.degraded_requests,
            wrong,
            *(f"{ms:.1f}" for ms in times),
            f"{seen.slowest_ms:.0f}",
            f"{seen.longest_stall_s * 1000:.0f}",
            before.requests - before.failed,
            after.requests - after.failed,
        ),
        flush=True,
    )


if __name__ == "__main__":
    main()
