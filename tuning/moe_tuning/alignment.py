"""Which neuron of one expert does what a neuron of another does: the order in which they compare.

Neurons of a feed-forward network may be put in any order without changing what it computes, so
two networks are only near each other once their neurons are matched. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

Weights = Mapping[str, Tensor]


def align(expert: Weights, to: Weights, layers: Sequence[int]) -> Weights:
    """Return `expert` with its neurons in the order of those of `to` that they are most like.

    Both have the tensors of an artifact, by its names. It computes what it did.
    """
    aligned: dict[str, Tensor] = {}
    for layer in layers:
        names = [f"layers.{layer}.{name}" for name in ("gate_proj", "up_proj", "down_proj")]
        gate, up, down = (expert[name] for name in names)
        first, second, third = (to[name] for name in names)
        order = match(similarity((first, second, third), (gate, up, down)))
        aligned |= dict(zip(names, (gate[order], up[order], down[:, order]), strict=True))
    return aligned


def similarity(a: tuple[Tensor, Tensor, Tensor], b: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Return (I, I): the sum of the cosines of neuron i of `a` and j of `b`.

    Each is (gate_proj (I, H), up_proj (I, H), down_proj (H, I)).
    """
    pairs = zip((a[0], a[1], a[2].T), (b[0], b[1], b[2].T), strict=True)
    return torch.stack(
        [functional.normalize(x, dim=1) @ functional.normalize(y, dim=1).T for x, y in pairs]
    ).sum(0)


def match(similar: Tensor) -> Tensor:
    """Return (I,): for each row of `similar` (I, I) a column of its own.

    In rounds: whoever are each other's best among those that are left become a pair. That is the
    greedy matching, whose sum is at least half of the best one's where nothing is negative.
    """
    left = similar.clone()
    found = torch.full((len(left),), -1)
    while bool((found < 0).any()):
        columns, rows = left.argmax(1), left.argmax(0)
        each = torch.arange(len(left))
        mutual = (rows[columns] == each) & (found < 0)
        found[mutual] = columns[mutual]
        left[mutual] = -torch.inf
        left[:, columns[mutual]] = -torch.inf
    return found
