"""An expert's function on rows of hidden states, in torch, under a rule of how rows are cut.

Worker and client use the very same objects, so that a model in one process has the bits of one
whose experts are elsewhere. Which rule is exact on a machine is found in `moe_core.exactness`.
This module knows nothing of artifacts, links or models.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F  # noqa: N812

from moe_core.dtypes import BFLOAT16, FLOAT16, FLOAT32, ElementType
from moe_core.weights import weights

_ALIGNMENT: Final = 64

_TORCH: Final = {FLOAT32: torch.float32, BFLOAT16: torch.bfloat16, FLOAT16: torch.float16}
_ELEMENT: Final = {dtype: element for element, dtype in _TORCH.items()}


def torch_dtype(element: ElementType) -> torch.dtype:
    """Return torch's name of an element type."""
    return _TORCH[element]


def element_type(dtype: torch.dtype) -> ElementType:
    """Return the element type of a tensor's dtype. Raises ValueError for any other."""
    if dtype not in _ELEMENT:
        raise ValueError(f"dtype is {dtype}; it must be one of {', '.join(map(str, _ELEMENT))}")
    return _ELEMENT[dtype]


@dataclass(frozen=True, slots=True)
class Rule:
    """How rows are cut before an expert sees them.

    `tiles` are the numbers of rows that may be computed together, rising; empty means that the
    whole batch goes at once (`Fast`). Within one `fingerprint` an exact rule gives equal bits.
    """

    tiles: tuple[int, ...]
    fingerprint: str

    @property
    def exact(self) -> bool:
        return bool(self.tiles)


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread inside: bits differ between numbers of threads."""
    threads = torch.get_num_threads()
    if threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def cut(rows: int, tiles: Sequence[int]) -> list[tuple[int, int, int]]:
    """Cut rows into tiles, largest first; return (first row, rows, tile) of each.

    Only the last tile can have fewer rows than its size, and is the smallest that holds them.
    """
    pieces = []
    start = 0
    while start < rows:
        left = rows - start
        tile = max((size for size in tiles if size <= left), default=tiles[0])
        pieces.append((start, min(tile, left), tile))
        start += tile
    return pieces


class ExpertKernel:
    """One layer of one expert: `down · (silu(gate · x) * (up · x))`.

    `gate_proj` and `up_proj` are (I, H), `down_proj` is (H, I), all of one dtype on one device.
    The weights are copied, so that their place in memory is the same for everyone; `bytes` is how
    much of it they take. Raises ValueError where shapes or dtypes do not fit.
    """

    def __init__(
        self,
        gate_proj: torch.Tensor,
        up_proj: torch.Tensor,
        down_proj: torch.Tensor,
        rule: Rule,
    ) -> None:
        shapes = tuple(gate_proj.shape), tuple(up_proj.shape), tuple(down_proj.shape)
        if gate_proj.ndim != 2 or shapes[1] != shapes[0] or shapes[2] != shapes[0][::-1]:
            raise ValueError(
                "gate_proj, up_proj and down_proj are {}, {} and {}; "
                "they must be (I, H), (I, H) and (H, I)".format(*shapes)
            )
        if not gate_proj.dtype == up_proj.dtype == down_proj.dtype:
            raise ValueError("gate_proj, up_proj and down_proj must have one dtype")
        element_type(gate_proj.dtype)
        self.rule = rule
        self.hidden_size = gate_proj.shape[1]
        self.dtype, self.device = down_proj.dtype, down_proj.device
        gate_up = torch.cat((gate_proj.detach(), up_proj.detach()))
        down = down_proj.detach().clone(memory_format=torch.contiguous_format)
        self._gate_up, self._down = weights(gate_up), weights(down)  # (2I, H), (H, I)
        self.bytes = gate_up.nbytes + down.nbytes

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the answers (T, H) for rows (T, H) of this dtype and device.

        Raises ValueError for any other shape or dtype.
        """
        if rows.ndim != 2 or rows.shape[1] != self.hidden_size or rows.dtype != self.dtype:
            raise ValueError(
                f"rows are {tuple(rows.shape)} {rows.dtype}; "
                f"they must be (T, {self.hidden_size}) {self.dtype}"
            )
        with one_thread(), torch.no_grad():
            if not self.rule.tiles:
                return self._forward(rows)
            return self._tiled(rows)

    def _tiled(self, rows: torch.Tensor) -> torch.Tensor:
        pieces = cut(rows.shape[0], self.rule.tiles)
        if len(pieces) == 1:
            _, count, tile = pieces[0]
            return self._forward(_place(rows, tile))[:count]
        out = torch.empty_like(rows, memory_format=torch.contiguous_format)
        for start, count, tile in pieces:
            piece = _place(rows[start : start + count], tile)
            out[start : start + count] = self._forward(piece)[:count]
        return out

    def _forward(self, rows: torch.Tensor) -> torch.Tensor:
        gate, up = self._gate_up(rows).chunk(2, dim=-1)  # (T, I) each
        return self._down(F.silu(gate) * up)


def _place(rows: torch.Tensor, tile: int) -> torch.Tensor:
    """Return the rows as one whole tile at an aligned address; copies only where they are not."""
    whole = rows.shape[0] == tile and rows.is_contiguous()
    if whole and rows.data_ptr() % _ALIGNMENT == 0:
        return rows
    placed = rows.new_zeros((tile, rows.shape[1]))
    placed[: rows.shape[0]] = rows
    return placed


def combine_torch(rows: torch.Tensor, weights: torch.Tensor, out: torch.dtype) -> torch.Tensor:
    """Return what `moe_core.combine.combine` returns, with equal bits, for tensors.

    `rows` (T, k, H), `weights` (T, k); the answer is (T, H) in dtype `out`.
    Raises ValueError where the shapes do not fit.
    """
    if rows.ndim != 3 or weights.shape != rows.shape[:2] or rows.shape[1] == 0:
        raise ValueError(
            f"rows are {tuple(rows.shape)} and weights {tuple(weights.shape)}; "
            "they must be (T, k, H) and (T, k), with k at least 1"
        )
    promoted = torch.promote_types(rows.dtype, weights.dtype)
    products = rows.to(promoted) * weights.to(promoted)[..., None]
    total = products[:, 0].to(torch.float32)
    for slot in range(1, rows.shape[1]):
        total = total + products[:, slot].to(torch.float32)
    return total.to(out)
