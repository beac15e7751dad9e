"""Ray Serve beside us: run by a Python that has `ray[serve]`, prints rows per second as JSON.

    PYTHONPATH=.venv/lib/python3.11/site-packages PYTHON -m tests.benchmarks.ray_serve

Eight callers that each wait for their own answer, 16 rows of bfloat16 each: an echo, as it comes
and with its limits of requests at once raised; and two replicas that each hold all experts and
compute a row's top-2. Hidden states travel as numpy arrays of their bytes, as Ray does that best.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable
from statistics import median
from typing import Any

import numpy as np

ROWS, CALLERS, HIDDEN, INTERMEDIATE, EXPERTS, TOP_K = 16, 8, 512, 1024, 8, 2


class Echo:
    """Gives rows back."""

    async def __call__(self, rows: Any) -> Any:
        return rows


class Experts:
    """All experts, computed one after another as far as rows ask for them."""

    def __init__(self) -> None:
        import torch

        torch.set_num_threads(1)
        draw = torch.Generator().manual_seed(0)
        shape = (EXPERTS, INTERMEDIATE, HIDDEN)
        self._gate, self._up = (torch.randn(shape, generator=draw).bfloat16() for _ in range(2))
        self._down = torch.randn((EXPERTS, HIDDEN, INTERMEDIATE), generator=draw).bfloat16()

    def __call__(self, rows: Any) -> Any:
        import torch
        from torch.nn.functional import linear, silu

        hidden = torch.from_numpy(rows).view(torch.bfloat16)
        index = torch.arange(ROWS * TOP_K).view(ROWS, TOP_K) % EXPERTS
        out = torch.zeros(ROWS, HIDDEN)
        for expert in range(EXPERTS):
            own = (index == expert).any(1)
            given = hidden[own]
            inner = silu(linear(given, self._gate[expert])) * linear(given, self._up[expert])
            out[own] += linear(inner, self._down[expert]).float() / TOP_K
        return out.bfloat16().view(torch.int16).numpy()


async def rate(ask: Callable[[Any], Awaitable[Any]], rounds: int, seconds: float) -> float:
    """Return rows per second, the median of rounds."""
    rows = np.zeros((ROWS, HIDDEN), np.int16)
    await ask(rows)

    async def call(until: float) -> int:
        done = 0
        while time.perf_counter() < until:
            await ask(rows)
            done += ROWS
        return done

    rates = []
    for _ in range(rounds):
        began = time.perf_counter()
        done = sum(await asyncio.gather(*(call(began + seconds) for _ in range(CALLERS))))
        rates.append(done / (time.perf_counter() - began))
    return median(rates)


def main() -> None:
    """Measure and print."""
    import ray
    from ray import serve

    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    given = parser.parse_args()
    os.environ["RAY_SERVE_LOG_TO_STDERR"] = "0"
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    one: dict[str, Any] = {"ray_actor_options": {"num_cpus": 0.1}}
    tuned = {**one, "num_replicas": 2, "max_ongoing_requests": 256}
    ways = {
        "echo": serve.deployment(**one)(Echo),
        "echo, tuned": serve.deployment(**tuned)(Echo),
        "experts": serve.deployment(**tuned)(Experts),
    }
    found = {}
    for name, way in ways.items():
        handle = serve.run(way.bind(), name=name.replace(", ", "-"), route_prefix=None)
        found[name] = asyncio.run(rate(handle.remote, given.rounds, given.seconds))
        serve.delete(name.replace(", ", "-"))
    print(json.dumps({"version": ray.__version__, **found}))
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main()
