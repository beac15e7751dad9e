"""The element types of hidden states and weights: one row for each, under all its names.

The wire knows them by number, objects and artifacts by name (`BFloat16`), numpy by dtype. Free of
torch, whose names for them are in `moe_core.kernel`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import ml_dtypes
import numpy as np

from moeops.v1.types_pb2 import DTYPE_BFLOAT16, DTYPE_FLOAT16, DTYPE_FLOAT32, Dtype


@dataclass(frozen=True, slots=True)
class ElementType:
    """An element type: its name, its number on the wire and its numpy dtype."""

    name: str
    wire: Dtype.ValueType
    numpy: np.dtype[Any]

    @property
    def bytes(self) -> int:
        """Bytes of one element."""
        return self.numpy.itemsize


FLOAT32: Final = ElementType("Float32", DTYPE_FLOAT32, np.dtype(np.float32))
BFLOAT16: Final = ElementType("BFloat16", DTYPE_BFLOAT16, np.dtype(ml_dtypes.bfloat16))
FLOAT16: Final = ElementType("Float16", DTYPE_FLOAT16, np.dtype(np.float16))
ELEMENT_TYPES: Final = (FLOAT32, BFLOAT16, FLOAT16)

_BY_NAME: Final = {element.name: element for element in ELEMENT_TYPES}
_BY_WIRE: Final = {element.wire: element for element in ELEMENT_TYPES}
_BY_NUMPY: Final = {element.numpy: element for element in ELEMENT_TYPES}


class UnknownDtype(ValueError):
    """No element type goes by that name or number."""


def by_name(name: str) -> ElementType:
    """Return the element type of a Mixture's or an artifact's `dtype`. Raises UnknownDtype."""
    if name not in _BY_NAME:
        raise UnknownDtype(f"dtype is {name!r}; it must be one of {', '.join(_BY_NAME)}")
    return _BY_NAME[name]


def by_wire(wire: Dtype.ValueType) -> ElementType:
    """Return the element type of a message's `dtype`. Raises UnknownDtype."""
    if wire not in _BY_WIRE:
        names = ", ".join(f"{Dtype.Name(known)} ({known})" for known in _BY_WIRE)
        raise UnknownDtype(f"dtype is {wire}; it must be one of {names}")
    return _BY_WIRE[wire]


def by_numpy(dtype: np.dtype[Any]) -> ElementType:
    """Return the element type of an array. Raises UnknownDtype."""
    if dtype not in _BY_NUMPY:
        raise UnknownDtype(f"dtype is {dtype}; it must be one of {', '.join(map(str, _BY_NUMPY))}")
    return _BY_NUMPY[dtype]
