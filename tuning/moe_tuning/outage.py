"""Measures a model with one expert out, answered as rungs of the failover ladder answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from moe_artifacts.golden import Golden
from moe_core.table import Rung
from moe_tuning.measure import bits_per_token
from moe_tuning.model import Model, feed_forward
from moe_tuning.parts import Weights
from moe_tuning.training import Say

RUNGS = (Rung.DENSE, Rung.RENORMALISE, Rung.RESIDUAL)


@dataclass(frozen=True, slots=True)
class Cost:
    """Bits per token on a rung, by the expert that is out; each the mean of all slices."""

    bits: Mapping[str, float]

    @property
    def mean(self) -> float:
        return sum(self.bits.values()) / len(self.bits)

    @property
    def worst(self) -> str:
        """The expert without which it is worst."""
        return max(self.bits, key=lambda name: self.bits[name])


def outages(
    model: Model, experts: Sequence[str], dense: Weights, heldout: Golden, say: Say
) -> Mapping[Rung, Cost]:
    """Return what each rung costs, each expert being out once; `experts` are the model's."""
    found: dict[Rung, dict[str, float]] = {rung: {} for rung in RUNGS}
    for number, name in enumerate(experts):
        say(f"measured without {name}")
        for rung in RUNGS:
            with without(model, number, rung, dense):
                bits = bits_per_token(model, heldout)
            found[rung][name] = sum(bits.values()) / len(bits)
    return {rung: Cost(bits) for rung, bits in found.items()}


@contextmanager
def without(model: Model, lost: int | Tensor, rung: Rung, dense: Weights) -> Iterator[None]:
    """Run the model as if an expert were out; of `lost` (T, 1) another one for each token.

    Dense answers with these tensors under the lost weight, Renormalise gives it to the token's
    other experts, Residual to nobody.
    """
    tensors = _layers(dense)
    with ExitStack() as hooks:
        for layer, block in enumerate(model.blocks()):
            out = _Out(lost, rung, tensors[layer])
            hooks.callback(block.experts.register_forward_pre_hook(out.take).remove)
            hooks.callback(block.experts.register_forward_hook(out.answer).remove)
        yield


def _layers(weights: Weights) -> Mapping[int, tuple[Tensor, Tensor, Tensor]]:
    """Return an expert's three tensors by layer."""
    numbers = sorted({int(name.split(".")[1]) for name in weights})
    return {
        n: (
            weights[f"layers.{n}.gate_proj"],
            weights[f"layers.{n}.up_proj"],
            weights[f"layers.{n}.down_proj"],
        )
        for n in numbers
    }


@dataclass
class _Out:
    """One layer without an expert; `weight` (T,) is what it had in the call that is under way."""

    lost: int | Tensor
    rung: Rung
    dense: tuple[Tensor, Tensor, Tensor]
    weight: Tensor | None = None

    def take(self, module: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden, index, weights = inputs  # (T, H), (T, k), (T, k)
        mine = index == self.lost
        self.weight = weights.masked_fill(~mine, 0.0).sum(1, keepdim=True)
        left = weights.masked_fill(mine, 0.0)
        if self.rung is Rung.RENORMALISE:
            sums = left.sum(1, keepdim=True)
            left = left * ((sums + self.weight) / torch.where(sums > 0, sums, 1.0))
        return hidden, index, left

    def answer(self, module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if self.rung is not Rung.DENSE or self.weight is None:
            return output
        return output + self.weight * feed_forward(*self.dense, inputs[0])
