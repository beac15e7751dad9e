"""`python -m tests.benchmarks.packing`: an expert's function with plain and with packed matrices.

Both compute the same rows in turns, in one thread of this process, going round so many experts that
no cache holds them all. Compare columns of one run only.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from itertools import cycle
from typing import Final

import torch
import torch.nn.functional as F  # noqa: N812

from moe_core.exactness import machine
from moe_core.weights import Packed, Plain, Weights
from tests.benchmarks.measure import in_turns

_SHAPES: Final = ((512, 1024), (1536, 4096))
_ROWS: Final = (1, 4, 16, 64, 256)
_BYTES: Final = 64 << 20  # of weights that each way goes round
_KINDS: Final[Mapping[str, Callable[[torch.Tensor], Weights]]] = {"plain": Plain, "packed": Packed}


def main() -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    print(f"{machine()}, load {os.getloadavg()[0]:.1f} before; bfloat16, p50 in µs of one expert\n")
    print("| H, I | T | plain | packed | |\n|---|---|---|---|---|")
    for hidden, intermediate in _SHAPES:
        count = max(_BYTES // (6 * hidden * intermediate), 2)
        experts = {
            name: _experts(kind, hidden, intermediate, count) for name, kind in _KINDS.items()
        }
        for rows in _ROWS:
            given = torch.randn(rows, hidden).bfloat16()
            ways = {name: _way(some, given) for name, some in experts.items()}
            took = in_turns(ways, rounds=9, seconds=0.2)
            plain, packed = took["plain"].p50_us, took["packed"].p50_us
            ratio = f"{plain / packed:.2f}×"
            print(f"| {hidden}, {intermediate} | {rows} | {plain:,.0f} | {packed:,.0f} | {ratio} |")


def _experts(
    kind: Callable[[torch.Tensor], Weights], hidden: int, intermediate: int, count: int
) -> list[tuple[Weights, Weights]]:
    return [
        (
            kind(torch.randn(2 * intermediate, hidden).bfloat16()),
            kind(torch.randn(hidden, intermediate).bfloat16()),
        )
        for _ in range(count)
    ]


def _way(experts: list[tuple[Weights, Weights]], rows: torch.Tensor) -> Callable[[], object]:
    turns = cycle(experts)

    @torch.inference_mode()
    def way() -> object:
        gate_up, down = next(turns)
        gate, up = gate_up(rows).chunk(2, dim=-1)
        return down(F.silu(gate) * up)

    return way


if __name__ == "__main__":
    main()
