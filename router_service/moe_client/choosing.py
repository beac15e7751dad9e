"""Merges what several versions of a gate chose for the same rows: each row takes its own version's.

Every version is computed on all rows, because matrix libraries give a row other bits in a smaller
batch. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.functional import pad

from moe_client.router_module import Chosen, Forward

EMPTY = -1
"""The index of a slot in which a version that chooses fewer experts chose nobody; it weighs 0."""


def choose(forwards: Sequence[Forward], which: torch.Tensor, hidden: torch.Tensor) -> Chosen:
    """Return each row's choice by `forwards[which[row]]`; `which` is (T,).

    It is as wide as the widest. A version that knows fewer experts has logits of -inf beyond them.
    """
    if len(forwards) == 1:
        return forwards[0](hidden)
    answers = [forward(hidden) for forward in forwards]
    which = which.to(hidden.device)
    logits, weights, index = zip(*answers, strict=True)
    return (
        _merge(logits, which, float("-inf")),
        _merge(weights, which, 0.0),
        _merge(index, which, EMPTY),
    )


def _merge(parts: Sequence[torch.Tensor], which: torch.Tensor, fill: float) -> torch.Tensor:
    width = max(part.shape[1] for part in parts)
    wide = [pad(part, (0, width - part.shape[1]), value=fill) for part in parts]  # each (T, width)
    merged = wide[0]
    for number, part in enumerate(wide[1:], start=1):
        merged = torch.where((which == number)[:, None], part, merged)
    return merged
