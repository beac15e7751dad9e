"""Names of number formats: the project's, safetensors' and numpy's, for those that weights use.

Nothing here converts values except `convert`, which rounds to nearest even where it narrows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from moe_core.dtypes import ELEMENT_TYPES

Array = NDArray[Any]

NUMPY_DTYPES: Final[Mapping[str, np.dtype[Any]]] = {e.name: e.numpy for e in ELEMENT_TYPES}
"""Numpy's dtype for each name of the project."""

CODES: Final[Mapping[str, str]] = {"BFloat16": "BF16", "Float16": "F16", "Float32": "F32"}
"""What a safetensors header calls them."""

NAMES: Final[Mapping[str, str]] = {code: name for name, code in CODES.items()}

ITEM_BYTES: Final[Mapping[str, int]] = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2"), 1),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 2),
    **dict.fromkeys(("I32", "U32", "F32"), 4),
    **dict.fromkeys(("I64", "U64", "F64"), 8),
}
"""Bytes of one number, for every code that a checkpoint may hold."""


def convert(array: Array, dtype: str) -> Array:
    """Return `array` as the named dtype, itself where it is that already."""
    return array.astype(NUMPY_DTYPES[dtype], copy=False)
