"""`python -m tests.benchmarks.gate_shadow`: what a gate in the shadow costs those who are served.

One router, two workers that hold half of the experts each, and callers that wait for their own
answers. In turns the same router has a table without a candidate, with one that looks at 5% of the
requests, and with one that looks at all. Figures depend on what else runs here.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
import torch

from moe_artifacts.artifact import encode
from moe_artifacts.metadata import GateMetadata
from moe_core.exactness import machine
from moe_core.policy import Policy
from moe_core.rollout import Outcome, Rollout
from moe_core.rows import GateRow, GateVariant
from tests.benchmarks.dispatch import EXPERTS, HIDDEN, LAYERS, TOP_K, Given, checkpoint, streams
from tests.client.served import Served, serve

CALLERS = 8
WAYS: Mapping[str, int | None] = {"no candidate": None, "shadow of 5%": 5, "shadow of 100%": 100}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15, help="of turns (15)")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each way in a round (1)")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        _run(Path(name), given.rounds, given.seconds)


def _run(directory: Path, rounds: int, seconds: float) -> None:
    print(
        f"{machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before; bfloat16, "
        f"H={HIDDEN}, {EXPERTS} experts, top-{TOP_K}, {CALLERS} callers; "
        f"medians of {rounds} rounds of {seconds:g} s\n"
    )
    path = checkpoint(directory / "checkpoint")
    with (
        serve(path, directory, dtype="BFloat16", spread=True) as served,
        asyncio.Runner() as runner,  # one loop for all: gRPC takes it ill when one ends early
    ):
        (first,) = served.table.table.gates
        candidate = _another(first.stable, directory / "candidate.safetensors")
        print(f"{'':<16}{'T':>5}{'rows/s':>10}{'against none':>15}")
        for rows in (1, 16, 256):
            rates: dict[str, list[float]] = {way: [] for way in WAYS}
            for _ in range(rounds):
                for way, percent in WAYS.items():
                    _have(served, first, candidate, percent)
                    given = Given.random(rows)
                    asked = streams(served.addresses, given, CALLERS, 1, seconds)
                    rates[way].append(runner.run(asked))
            for way, seen in rates.items():
                pairs = zip(seen, rates["no candidate"], strict=True)
                change = median(100 * (rate / none - 1) for rate, none in pairs)
                print(f"{way:<16}{rows:>5}{median(seen):>10,.0f}{change:>14.1f}%")


def _have(served: Served, first: GateRow, candidate: GateVariant, percent: int | None) -> None:
    """Have the router take a table with this share in the shadow, or without a candidate."""
    row = first
    if percent is not None:
        rollout = Rollout(
            revision=2,
            target=candidate,
            step=0,
            step_began="2026-01-01T00:00:00Z",
            outcome=Outcome.PROGRESSING,
            reason="",
            salt="s",
            shadow_percent=percent,
        )
        row = replace(first, candidate=candidate, rollout=rollout)
    written = served.table.write(replace(served.table.table, gates=(row,)))
    for router in served.routers:
        router.wait_for_epoch(written.epoch)


def _another(stable: GateVariant, path: Path) -> GateVariant:
    """Write a gate of the same experts with random weights."""
    policy = Policy(TOP_K)
    metadata = GateMetadata(tuple(range(LAYERS)), HIDDEN, stable.experts, policy, "Float32")
    weights = np.random.default_rng(1).standard_normal((EXPERTS, HIDDEN)).astype(np.float32)
    content = b"".join(bytes(piece) for piece in encode(metadata, lambda name: weights))
    path.write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    return GateVariant("candidate", sha256, path.resolve().as_uri(), stable.experts, policy)


if __name__ == "__main__":
    main()
