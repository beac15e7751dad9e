"""`python -m tests.benchmarks.failover`: what a caller notices when a worker or a router goes.

Steady load on two routers and two workers that each hold every expert; in turn a worker is
stopped and killed, and so is a router. Prints failed requests, requests whose answer was degraded
the slowest request and the longest time without any answer.
"""

from __future__ import annotations

import argparse
import signal
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from moe_client.figures import Report
from moe_client.recorder import record
from moe_client.steady import SteadyLoad
from tests.client.served import Served, serve
from tests.client.test_attachment import some_tokens
from tests.client.tiny import load_tiny, save_tiny

ROW = "{:<34}{:>10}{:>8}{:>10}{:>12}{:>10}{:>12}{:>10}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--requests-per-s", type=float, default=200.0, help="(200)")
    parser.add_argument("--seconds", type=float, default=3.0, help="of load around each event (3)")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        _run(Path(name), given.requests_per_s, given.seconds)


def _run(directory: Path, requests_per_s: float, seconds: float) -> None:
    checkpoint = save_tiny(directory / "checkpoint", torch.bfloat16)
    recording = record(load_tiny(checkpoint), [some_tokens(1, 16, n)[0] for n in range(8)])
    with serve(checkpoint, directory, dtype="BFloat16", routers=2) as served:
        load = SteadyLoad(served.addresses, recording, sessions=8, requests_per_s=requests_per_s)
        heads = ("requests", "failed", "degraded", "other bits", "p99 ms", "slowest ms", "stall ms")
        print(ROW.format("", *heads))
        with load:
            for name, act in _events(served).items():
                since_s = load.now()
                time.sleep(seconds / 3)
                act()
                time.sleep(seconds * 2 / 3)
                _print(name, load.report(since_s))


def _events(served: Served) -> dict[str, Callable[[], None]]:
    worker, router = served.workers[0], served.routers[0]
    return {
        "nothing": lambda: None,
        "a worker falls silent (SIGSTOP)": lambda: worker.signal(signal.SIGSTOP),
        "it comes back (SIGCONT)": lambda: worker.signal(signal.SIGCONT),
        "a worker is killed (SIGKILL)": worker.kill,
        "a router falls silent (SIGSTOP)": lambda: router.signal(signal.SIGSTOP),
        "it comes back again (SIGCONT)": lambda: router.signal(signal.SIGCONT),
        "a router is killed (SIGKILL)": router.kill,
    }


def _print(name: str, seen: Report) -> None:
    figures = (seen.requests, seen.failed, seen.degraded_requests, seen.different)
    stall_ms = f"{seen.longest_stall_s * 1000:.0f}"
    print(
        ROW.format(name, *figures, f"{seen.p99_ms:.1f}", f"{seen.slowest_ms:.0f}", stall_ms),
        flush=True,
    )


if __name__ == "__main__":
    main()
