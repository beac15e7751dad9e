"""The rule of exactness: in which tiles a row has the same bits whatever else is in the batch.

Matrix libraries choose their inner loops by the number of rows, and those differ in the last
bits. `Exact` therefore computes only in tiles of a few sizes, for which it was proven, on this
machine and for this shape, that a row has the same bits in any of them, at any position and
whatever stands beside it. Two processes on machines of one kind find the same rule.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from moe_core.kernel import ExpertKernel, Rule, element_type

TILE_SIZES: Final = (4, 8, 16, 32, 64, 128, 256)
# A GPU reads all weights for each tile, however few its rows: few large ones are best.
GPU_TILE_SIZES: Final = (16, 32, 64, 128, 256, 512, 1024)
# Rows should go at least this many at a time: small tiles alone would be slow.
_GOOD_TILE: Final = 32
_PROBES: Final = 16
_CPU: Final = torch.device("cpu")
_BITS: Final = {2: torch.int16, 4: torch.int32}


class NotExact(RuntimeError):
    """On this machine no rule gives a row the same bits whatever else is in the batch."""


def machine(device: torch.device = _CPU) -> str:
    """Return what bits depend on besides the rule: processor, torch, threads."""
    if device.type == "cpu":
        from torch import cpu

        extras = [
            name
            for name, there in (
                ("bf16", cpu._is_avx512_bf16_supported()),
                ("amx", cpu._is_amx_tile_supported()),
            )
            if there
        ]
        chip = "+".join([torch.backends.cpu.get_cpu_capability(), *extras])
    else:
        name = torch.cuda.get_device_name(device).replace(" ", "-")
        chip = f"{name} cuda={torch.version.cuda}"
    return f"{chip} torch={torch.__version__} threads=1"


def fast(device: torch.device = _CPU) -> Rule:
    """Return the rule of `Fast`: the whole batch at once, bits as they come."""
    return Rule((), f"{machine(device)} fast")


def prove(
    dtype: torch.dtype,
    hidden: int,
    intermediate: int,
    device: torch.device = _CPU,
    kernel_type: type[ExpertKernel] = ExpertKernel,
) -> Rule:
    """Find and prove the rule for experts of this shape and dtype on this machine.

    The smallest tile is the base: rows computed alone in it are the reference. Larger tiles are
    admitted if rows at every position in them, among noise, huge values and NaN, have the bits of
    the reference. Raises NotExact where not even a base holds by itself.
    """
    sizes, good = (TILE_SIZES, _GOOD_TILE)
    if device.type != "cpu":
        sizes, good = GPU_TILE_SIZES, GPU_TILE_SIZES[-1]
    bench = _Bench.draw(dtype, hidden, intermediate, device, kernel_type, sizes[-1])
    tiles = choose((_admitted(bench, base, sizes) for base in sizes), good)
    name = element_type(dtype).name
    if not tiles:
        raise NotExact(
            f"numerics Exact cannot be had for {name} experts of hidden size {hidden} and "
            f"intermediate size {intermediate} on {machine(device)}; numerics must be Fast"
        )
    probe = hashlib.sha256(_bytes(bench.alone(tiles[0]))).hexdigest()[:12]
    joined = "+".join(map(str, tiles))
    shape = f"{name} {hidden}x{intermediate} tiles={joined} probe={probe}"
    return Rule(tiles, f"{machine(device)} {shape}")


def choose(classes: Iterable[tuple[int, ...]], good: int = _GOOD_TILE) -> tuple[int, ...]:
    """Choose among tiles with equal bits, given class by class with rising base.

    The first class that reaches tiles of `good` rows, else the one whose tiles grow largest; empty
    where no class holds. Takes no more classes than it needs: each costs a proof.
    """
    best: tuple[int, ...] = ()
    for tiles in classes:
        if max(tiles, default=0) > max(best, default=0):
            best = tiles
        if max(best, default=0) >= good:
            break
    return best


@dataclass(frozen=True, slots=True)
class _Bench:
    """An expert with drawn weights, rows to be met again, and rows to disturb them."""

    kernel: ExpertKernel
    probes: torch.Tensor  # (16, H)
    noise: torch.Tensor  # (largest tile, H)

    @classmethod
    def draw(
        cls,
        dtype: torch.dtype,
        hidden: int,
        intermediate: int,
        device: torch.device,
        kernel_type: type[ExpertKernel],
        most_rows: int,
    ) -> _Bench:
        rng = np.random.Generator(np.random.PCG64(0))

        def normal(rows: int, columns: int, scale: float) -> torch.Tensor:
            values = rng.standard_normal((rows, columns), dtype=np.float32) * np.float32(scale)
            return torch.from_numpy(values).to(device=device, dtype=dtype)

        gate = normal(intermediate, hidden, hidden**-0.5)
        up = normal(intermediate, hidden, hidden**-0.5)
        down = normal(hidden, intermediate, intermediate**-0.5)
        kernel = kernel_type(gate, up, down, Rule((most_rows,), ""))
        noise = normal(most_rows, hidden, 1.0)
        noise[0::7] = float("nan")
        noise[1::7] = 6e4 if dtype == torch.float16 else 3e38
        return cls(kernel, normal(_PROBES, hidden, 1.0), noise)

    def alone(self, tile: int) -> torch.Tensor:
        """Return the answers of the probes, each computed alone in a tile."""
        self.kernel.rule = Rule((tile,), "")
        return torch.cat([self.kernel(row[None]) for row in self.probes])

    def among(self, tile: int, parity: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (which probe, its answer) for every second position of a disturbed tile."""
        batch = self.noise[:tile].clone()
        positions = torch.arange(parity, tile, 2, device=batch.device)
        which = (positions // 2 + parity) % _PROBES
        batch[positions] = self.probes[which]
        self.kernel.rule = Rule((tile,), "")
        return which, self.kernel(batch)[positions]


def _admitted(bench: _Bench, base: int, sizes: Iterable[int]) -> tuple[int, ...]:
    """Return the tiles in which probes have the bits they have alone in `base`, if it is one."""
    alone = bench.alone(base)
    if not _holds(bench, base, alone):
        return ()
    larger = (tile for tile in sizes if tile > base and _holds(bench, tile, alone))
    return (base, *larger)


def _holds(bench: _Bench, tile: int, alone: torch.Tensor) -> bool:
    """Tell whether rows at every position of a tile have the bits that they have alone."""
    bits = _BITS[alone.element_size()]
    seen: Iterator[tuple[torch.Tensor, torch.Tensor]]
    seen = (bench.among(tile, parity) for parity in (0, 1))
    return all(torch.equal(answers.view(bits), alone[which].view(bits)) for which, answers in seen)


def _bytes(answers: torch.Tensor) -> bytes:
    return answers.cpu().contiguous().view(torch.uint8).numpy().tobytes()
