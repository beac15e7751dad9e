"""Moves rows between torch and numpy without changing a bit; bfloat16 has no numpy of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from moe_core.kernel import element_type


def to_numpy(tensor: torch.Tensor) -> NDArray[Any]:
    """Return the values of a tensor of any device: int32, or a dtype that hidden states may have.

    Raises ValueError for any other.
    """
    plain = tensor.detach().cpu().contiguous()
    if plain.dtype == torch.int32:
        return plain.numpy()
    return plain.view(torch.uint8).numpy().view(element_type(plain.dtype).numpy)


def to_torch(array: NDArray[Any], like: torch.Tensor) -> torch.Tensor:
    """Return a copy of the array with the dtype and on the device of `like`."""
    raw = np.ascontiguousarray(array).view(np.uint8).copy()
    return torch.from_numpy(raw).view(like.dtype).to(like.device)


def from_bytes(data: Any, dtype: torch.dtype, shape: Sequence[int]) -> torch.Tensor:
    """Return a copy of raw values, anything with the buffer protocol, as a tensor."""
    raw = np.frombuffer(data, np.uint8).copy()
    return torch.from_numpy(raw).view(dtype).reshape(tuple(shape))
