"""Keeps a new expert apart while it is trained: its text is led to it, familiar text is not.

The first is the guide with which the example model was trained, after DEMix layers (Gururangan et
al. 2021, arXiv:2108.05036); the second keeps what the new expert must not change out of its reach.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from moe_tuning.model import Model

GUIDED = 0.6


@dataclass(frozen=True, slots=True)
class Guide:
    """How much the way to the last row counts beside the loss, and how much more familiar text."""

    top_k: int
    weight: float = 0.3
    keep: float = 10.0
    margin: float = 2.0

    def loss(self, layers: Sequence[Tensor], *, finds: bool) -> Tensor:
        """Return what logits (T, E) of each layer cost, the mean over tokens and layers.

        With `finds`: max(0, log GUIDED - log p(last row)); else, with c the k-th highest logit of
        the other rows: keep × max(0, last logit - c + margin).
        """
        return self.weight * torch.stack([self._layer(x, finds) for x in layers]).mean()

    def _layer(self, logits: Tensor, finds: bool) -> Tensor:
        if finds:
            return (math.log(GUIDED) - logits.log_softmax(-1)[:, -1]).clamp_min(0).mean()
        top = logits[:, :-1].topk(self.top_k, -1).values[:, -1].detach()
        return self.keep * (logits[:, -1] - top + self.margin).clamp_min(0).mean()


@contextmanager
def watch_gates(model: Model) -> Iterator[list[Tensor]]:
    """Give a list to which each forward appends every layer's logits (T, E): its last row's, and
    those by which it would be preferred to each of the others."""
    seen: list[Tensor] = []

    def see(module: Any, inputs: Any, output: tuple[Tensor, ...]) -> None:
        seen.append(module.contest(output[0]))

    with ExitStack() as hooks:
        for block in model.blocks():
            hooks.callback(block.gate.register_forward_hook(see).remove)
        yield seen
