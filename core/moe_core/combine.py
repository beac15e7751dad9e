"""Adds up what the chosen experts answered for a token: the combine of a mixture, in numpy.

The order of every rounding is fixed here, so that a router, which is free of torch, and a model in
one process (`moe_core.kernel.combine_torch`) get equal bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_FLOAT32 = np.dtype(np.float32)


def combine(rows: NDArray[Any], weights: NDArray[Any], out: np.dtype[Any]) -> NDArray[Any]:
    """Return the weighted sum over the chosen experts of each token, (T, H) in dtype `out`.

    `rows` (T, k, H) are the experts' answers and `weights` (T, k) the gate's. Products are in the
    promoted dtype of both, summed over k in float32 in slot order, rounded once to `out`. Values
    that are not finite are passed on. Raises ValueError where the shapes do not fit.
    """
    if rows.ndim != 3 or weights.shape != rows.shape[:2] or rows.shape[1] == 0:
        raise ValueError(
            f"rows are {rows.shape} and weights {weights.shape}; "
            "they must be (T, k, H) and (T, k), with k at least 1"
        )
    # Two different element types have float32 in common. Products of 16 bit factors are exact in
    # float32, which numpy multiplies many times faster, and are rounded right after.
    promoted = rows.dtype if rows.dtype == weights.dtype else _FLOAT32
    factors = weights.astype(_FLOAT32, copy=False)[..., None]  # (T, k, 1)
    with np.errstate(all="ignore"):
        products = rows.astype(_FLOAT32, copy=False) * factors
        if promoted != _FLOAT32:
            products = products.astype(promoted).astype(_FLOAT32)
        total: NDArray[Any] = products[:, 0].copy()
        for slot in range(1, rows.shape[1]):
            total += products[:, slot]
        return total.astype(out, copy=False)
