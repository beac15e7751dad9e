"""`python -m tests.benchmarks.devices`: an expert's batch on the processor and on a GPU, in turns.

What a worker does with a batch: rows from main memory to the device, the expert, a look at its
answers, and answers back into main memory; beside them the expert's products alone, with rows that
are there already. One thread of the processor, as a worker has. Figures depend on what else runs
here; compare those of one run only.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch

from moe_core.exactness import NotExact, fast, prove
from moe_core.kernel import ExpertKernel, Rule
from moe_worker.compute import inspect, run
from moe_worker.device import find, pinned, told
from tests.benchmarks.measure import in_turns

SHAPES = ((512, 1024), (4096, 14336))
ROWS = (1, 16, 256, 1024, 4096)
# Beyond it a processor takes seconds for a batch.
_MOST_ON_CPU = 1 << 36  # products of a batch
_DTYPE = torch.bfloat16


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="of turns (5)")
    parser.add_argument("--seconds", type=float, default=0.1, help="of each turn (0.1)")
    given = parser.parse_args(arguments)
    devices = list(dict.fromkeys((torch.device("cpu"), find("auto"))))
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before; {_DTYPE}")
    print(f"medians of {given.rounds} rounds; on {', '.join(map(told, devices))}")
    torch.set_num_threads(1)
    for hidden, intermediate in SHAPES:
        print(f"\nH = {hidden}, I = {intermediate}")
        rules = {device: _rules(device, hidden, intermediate) for device in devices}
        _print(hidden, intermediate, rules, given.rounds, given.seconds)


def _rules(device: torch.device, hidden: int, intermediate: int) -> list[Rule]:
    began = time.perf_counter()
    try:
        exact = [prove(_DTYPE, hidden, intermediate, device)]
        print(f"proven in {time.perf_counter() - began:.1f} s: {exact[0].fingerprint}")
    except NotExact as error:
        exact = []
        print(error)
    return [*exact, fast(device)]


def _print(
    hidden: int,
    intermediate: int,
    rules: dict[torch.device, list[Rule]],
    rounds: int,
    seconds: float,
) -> None:
    draw = torch.Generator().manual_seed(0)
    sizes = (intermediate, hidden), (intermediate, hidden), (hidden, intermediate)
    drawn = [(torch.randn(*size, generator=draw) * hidden**-0.5).to(_DTYPE) for size in sizes]
    gate, up, down = drawn
    kernels = {
        f"{rule.fingerprint.partition(' ')[0]} {'Exact' if rule.exact else 'Fast'}": ExpertKernel(
            gate.to(device), up.to(device), down.to(device), rule
        )
        for device, found in rules.items()
        for rule in found
    }
    print(f"{'us of a batch (rows/s)':<44}" + "".join(f"{f'T = {rows}':>21}" for rows in ROWS))
    shown: dict[str, list[str]] = {}
    for rows in ROWS:
        batch = torch.randn(rows, hidden, generator=draw).to(_DTYPE)
        ways: dict[str, Callable[[], object]] = {}
        for name, kernel in kernels.items():
            if kernel.device.type == "cpu" and 3 * rows * hidden * intermediate > _MOST_ON_CPU:
                continue
            if kernel.device.type == "cpu":
                ways[name] = partial(run, kernel, [batch])
                continue
            sent = batch.pin_memory() if pinned(kernel.device, batch.nbytes) else batch
            ways[name] = partial(run, kernel, [sent])
            ways[f"{name}, not pinned"] = _pageable(kernel, batch)
            ways[f"{name}, products alone"] = _alone(kernel, batch)
        timed = in_turns(ways, rounds=rounds, seconds=seconds)
        for name in (*kernels, *(n for n in ways if n not in kernels)):
            cells = shown.setdefault(name, [""] * ROWS.index(rows))
            took = timed.get(name)
            cells.append(f"{took.p50_us:,.0f} ({rows * 1e6 / took.p50_us:,.0f})" if took else "-")
    for name, cells in shown.items():
        print(f"{name:<44}" + "".join(f"{cell:>21}" for cell in cells))


def _pageable(kernel: ExpertKernel, batch: torch.Tensor) -> Callable[[], object]:
    def compute() -> object:
        rows = batch.to(kernel.device)
        answers = kernel(rows)
        inspect(rows, answers)
        return answers.cpu()

    return compute


def _alone(kernel: ExpertKernel, batch: torch.Tensor) -> Callable[[], object]:
    rows = batch.to(kernel.device)

    def compute() -> None:
        kernel(rows)
        torch.cuda.synchronize(kernel.device)

    return compute


if __name__ == "__main__":
    main()
