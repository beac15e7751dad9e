"""What a mixture does without one of its experts, done in one process by changing the gate.

The same rungs as the router's failover ladder, for training and for measuring; the router does
not use this code.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from transformers import MixtralForCausalLM

GateOutput = tuple[Tensor, Tensor, Tensor]
"""Logits (T, E), weights (T, k) that sum to 1, and expert numbers (T, k)."""


def to_backup(out: GateOutput, lost: Tensor, backup: Tensor) -> GateOutput:
    """Send the rows of the pairs in `lost` (T, k) to `backup`, broadcast to (T, k)."""
    logits, weights, chosen = out
    return logits, weights, torch.where(lost, backup, chosen)


def renormalised(out: GateOutput, lost: Tensor) -> GateOutput:
    """Give the weight of the pairs in `lost` to those left in the row, keeping the row's sum.

    A row that has lost all of its experts keeps weight nowhere: the residual alone.
    """
    logits, weights, chosen = out
    left = weights.masked_fill(lost, 0.0)
    scale = weights.sum(-1, keepdim=True) / left.sum(-1, keepdim=True).clamp_min(1e-9)
    return logits, left * scale, chosen


def residual(out: GateOutput, lost: Tensor) -> GateOutput:
    """Answer the pairs in `lost` with nothing."""
    logits, weights, chosen = out
    return logits, weights.masked_fill(lost, 0.0), chosen


def gates(model: MixtralForCausalLM) -> list[nn.Module]:
    """Return the gate of every layer."""
    return [layer.mlp.gate for layer in model.model.layers]


@contextmanager
def without(model: MixtralForCausalLM, expert: int, rung: str, backup: int = 0) -> Iterator[None]:
    """Run `model` as if `expert` were out, answered on `rung`.

    `rung` is `backup` (by the expert of that number), `renormalise` or `residual`; ValueError for
    another. The dense rung is a replaced expert: see `model.replace_expert`.
    """
    if rung not in ("backup", "renormalise", "residual"):
        raise ValueError(f"rung is {rung!r}; it must be backup, renormalise or residual")

    def change(_module: nn.Module, _args: tuple[Tensor, ...], out: GateOutput) -> GateOutput:
        lost = out[2] == expert
        if rung == "backup":
            return to_backup(out, lost, torch.tensor(backup))
        return renormalised(out, lost) if rung == "renormalise" else residual(out, lost)

    with ExitStack() as hooks:
        for gate in gates(model):
            hooks.callback(gate.register_forward_hook(change).remove)
        yield
