"""Trains one expert of a loaded model, in all layers, and nothing else of it.

The loss and the text are the caller's; this module only sees to it that no other weight moves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from transformers import MixtralForCausalLM

from examples.tiny.train import rate


def append_expert(model: MixtralForCausalLM, like: int) -> int:
    """Give every layer one more expert, a copy of `like`, that no gate chooses; return its number.

    Rows reach it only through a hook that changes the gate's choice.
    """
    for layer in model.model.layers:
        experts = layer.mlp.experts
        for name in ("gate_up_proj", "down_proj"):
            weight = getattr(experts, name).detach()
            setattr(experts, name, nn.Parameter(torch.cat([weight, weight[like : like + 1]])))
        experts.num_experts += 1
    return int(model.model.layers[0].mlp.experts.num_experts) - 1


def only(expert: int, experts: int) -> Callable[[Tensor], Tensor]:
    """Return a gradient hook for (experts, ...) weights that lets only `expert` learn."""
    mask = torch.zeros(experts)
    mask[expert] = 1.0
    return lambda gradient: gradient * mask.view(-1, 1, 1)


def tune(
    model: MixtralForCausalLM,
    expert: int,
    losses: Iterator[Tensor],
    steps: int,
    peak: float,
) -> Iterator[float]:
    """Take `steps` steps of Adam on `expert`, yielding each loss.

    Every item of `losses` is computed from the model as it is when the item is asked for. Without
    weight decay a weight whose gradient was always zero does not move at all.
    """
    model.requires_grad_(False)
    weights = []
    for layer in model.model.layers:
        experts = layer.mlp.experts
        for weight in (experts.gate_up_proj, experts.down_proj):
            weight.requires_grad_(True)
            weight.register_hook(only(expert, experts.num_experts))
            weights.append(weight)
    optimizer = torch.optim.AdamW(weights, betas=(0.9, 0.95), weight_decay=0.0)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate(step, steps, peak)
        loss = next(losses)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        yield loss.item()
