"""`python -m tests.benchmarks.dispatch`: one MoE layer, in one process and through the router.

All ways compute the same rows in one run, in turns: transformers' own implementations, our kernel
in this process, and Dispatch through a router to two workers that hold half of the experts each,
all on this host. Figures depend on what else runs here; compare columns of one run only.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from collections.abc import Callable
from collections.abc import Sequence as Many
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import MixtralConfig, MixtralForCausalLM

from moe_client import Choice, Rows, Sequence, attach, use_local
from moe_client.aio import RouterClient
from moe_client.tensors import to_numpy
from moe_core.exactness import machine
from tests.benchmarks.measure import Timing, in_turns
from tests.client.served import serve

LAYERS, EXPERTS, TOP_K, HIDDEN, INTERMEDIATE = 1, 8, 2, 512, 1024
REMOTE = "router + 2 workers"
IMPLEMENTATIONS = {
    "transformers eager": "eager",
    "transformers grouped_mm": "grouped_mm",
    "moeops_local (Exact)": "moeops_local",
    "moeops_local_fast": "moeops_local_fast",
}


@dataclass(frozen=True, slots=True)
class Given:
    """The same rows for everyone: (T, H), (T, k), (T, k)."""

    hidden: torch.Tensor
    index: torch.Tensor
    weights: torch.Tensor

    @classmethod
    def random(cls, rows: int, seed: int = 0) -> Given:
        generator = torch.Generator().manual_seed(seed)
        hidden = torch.randn(rows, HIDDEN, generator=generator).bfloat16()
        scores = torch.randn(rows, EXPERTS, generator=generator).softmax(-1)
        weights, index = scores.topk(TOP_K)
        return cls(hidden, index, weights / weights.sum(-1, keepdim=True))


def main(arguments: Many[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="of turns (5)")
    parser.add_argument("--seconds", type=float, default=0.5, help="of each way in a round (0.5)")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        _run(Path(name), given.rounds, given.seconds)


@torch.inference_mode()
def _run(directory: Path, rounds: int, seconds: float) -> None:
    path = checkpoint(directory / "checkpoint")
    here, there = load_model(path), load_model(path)
    use_local(here)
    load = os.getloadavg()[0]
    print(
        f"{machine()}, {os.cpu_count()} cores, load {load:.1f} before; bfloat16, "
        f"H={HIDDEN} I={INTERMEDIATE}, {EXPERTS} experts, top-{TOP_K}; "
        f"medians of {rounds} rounds of {seconds:g} s\n"
    )
    with serve(path, directory, dtype="BFloat16", spread=True) as served:
        print(f"{'':<26}{'T':>5}{'p50 us':>10}{'p99 us':>10}{'rows/s':>10}")
        with attach(there, served.addresses, session="bench"):
            for rows in (1, 16, 256):
                given = Given.random(rows)
                ways = local_ways(here, given) | {REMOTE: partial(_layer, there, given)}
                for way, timing in in_turns(ways, rounds=rounds, seconds=seconds).items():
                    _print(way, rows, timing)
        rate = asyncio.run(streams(served.addresses, Given.random(16), 8, rounds, seconds))
        print(f"\n{REMOTE}, 8 callers at once, T=16: {rate:,.0f} rows/s")


def checkpoint(directory: Path) -> Path:
    torch.manual_seed(0)
    config = MixtralConfig(
        vocab_size=64,
        hidden_size=HIDDEN,
        intermediate_size=INTERMEDIATE,
        num_hidden_layers=LAYERS,
        num_attention_heads=8,
        num_key_value_heads=8,
        num_local_experts=EXPERTS,
        num_experts_per_tok=TOP_K,
    )
    model: Any = MixtralForCausalLM(config)
    model.bfloat16().save_pretrained(directory)
    return directory


def load_model(checkpoint: Path) -> Any:
    return MixtralForCausalLM.from_pretrained(checkpoint, dtype="auto")


def local_ways(here: Any, given: Given) -> dict[str, Callable[[], object]]:
    """Return the ways of computing the layer in this process, by name."""

    def way(implementation: str) -> Callable[[], object]:
        def compute() -> object:
            here.config._experts_implementation_internal = implementation
            return _layer(here, given)

        return compute

    return {name: way(value) for name, value in IMPLEMENTATIONS.items()}


def _layer(model: Any, given: Given) -> object:
    return model.model.layers[0].mlp.experts(given.hidden, given.index, given.weights)


async def streams(
    addresses: list[str], given: Given, callers: int, rounds: int, seconds: float
) -> float:
    """Return rows per second of several callers that each wait for their own answers."""
    async with RouterClient(addresses) as client:
        gate = (await client.describe()).gates[0]
        choice = Choice(gate.sha256, to_numpy(given.index.to(torch.int32)), to_numpy(given.weights))
        hidden = to_numpy(given.hidden)

        async def call(session: str, until: float) -> int:
            rows = Rows(0, hidden, (Sequence(session, len(hidden)),))
            done = 0
            while time.perf_counter() < until:
                await client.dispatch(rows, choice)
                done += len(hidden)
            return done

        rates = []
        for _ in range(rounds):
            began = time.perf_counter()
            calls = (call(f"bench-{n}", began + seconds) for n in range(callers))
            done = sum(await asyncio.gather(*calls))
            rates.append(done / (time.perf_counter() - began))
    return float(np.median(rates))


def _print(way: str, rows: int, timing: Timing) -> None:
    rate = rows * timing.per_s
    print(f"{way:<26}{rows:>5}{timing.p50_us:>10,.0f}{timing.p99_us:>10,.0f}{rate:>10,.0f}")


if __name__ == "__main__":
    main()
