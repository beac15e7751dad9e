"""A weight matrix as rows are multiplied by it: packed once where the matrix library can do so.

oneDNN lays a matrix out anew on every call that gets it plain, which for few rows costs as much as
the product does. Which matrices are packed follows from their dtype and the machine alone, so that
all processes on machines of one kind have the same bits.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final, Protocol

import torch
import torch.nn.functional as F  # noqa: N812

# For how many rows a matrix is laid out. Those measured, 4 to 256, were served equally well by any.
_ROWS: Final = 16


class Weights(Protocol):
    """A matrix (N, M) that rows are multiplied by."""

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """Return `rows · matrixᵀ`, (T, N) for rows (T, M)."""
        ...


class Plain:
    """The matrix as torch has it."""

    def __init__(self, matrix: torch.Tensor) -> None:
        self._matrix = matrix

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        return F.linear(rows, self._matrix)


class Packed:
    """The matrix as oneDNN reads it. Raises RuntimeError where the machine has no such product."""

    def __init__(self, matrix: torch.Tensor) -> None:
        ops: Any = torch.ops.mkldnn
        self._multiply = ops._linear_pointwise.default
        self._matrix = ops._reorder_linear_weight.default(matrix, _ROWS)

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        product: torch.Tensor = self._multiply(rows, self._matrix, None, "none", [], "")
        return product


def weights(matrix: torch.Tensor) -> Weights:
    """Return a matrix (N, M), which must not be written to afterwards, ready to multiply by.

    Only bfloat16 is packed: plain float32 is not oneDNN's to multiply, and has other bits there.
    """
    if matrix.device.type == "cpu" and matrix.dtype == torch.bfloat16 and can_pack():
        return Packed(matrix)
    return Plain(matrix)


@cache
def can_pack() -> bool:
    """Return whether this machine and this torch multiply by packed bfloat16 matrices."""
    square = torch.ones((64, 64), dtype=torch.bfloat16)
    try:
        return bool((Packed(square)(square) == 64).all())
    except (RuntimeError, AttributeError):  # no such instruction, or no such function of torch
        return False
