"""Measures how well a model predicts held-out text, and what its experts are used for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from moe_artifacts.golden import Golden
from moe_tuning.model import Model, batches, neurons
from moe_tuning.rows import Tokens

BATCH = 16


@torch.inference_mode()
def bits_per_token(model: Model, heldout: Golden) -> Mapping[str, float]:
    """Return the mean of -log2 p(token) by slice, over every token of a sequence but its first."""
    found = {}
    for name in heldout.slices:
        total, count = 0.0, 0
        for tokens in batches(heldout, BATCH, name):
            loss = next_token_loss(model.logits(tokens), tokens, reduction="sum")
            total, count = total + loss.item(), count + tokens[:, 1:].numel()
        found[name] = total / math.log(2) / count
    return found


def next_token_loss(logits: Tensor, tokens: Tensor, reduction: str = "mean") -> Tensor:
    """Return the cross-entropy of each next token, in nats; logits (N, L, V), tokens (N, L)."""
    wanted = tokens[:, 1:].flatten()
    return functional.cross_entropy(logits[:, :-1].flatten(0, 1), wanted, reduction=reduction)


@dataclass(frozen=True, slots=True)
class Usage:
    """How much each expert is used, (L, E) each: tokens that chose it, and its activation."""

    tokens: Tensor
    activation: Tensor

    @property
    def shares(self) -> Tensor:
        """Each expert's share of a layer's activation, the mean of all layers, (E,)."""
        return (self.activation / self.activation.sum(1, keepdim=True)).mean(0)

    @property
    def chosen(self) -> Tensor:
        """The share of tokens that choose each expert, the mean of all layers, (E,)."""
        return (self.tokens / self.tokens.sum(1, keepdim=True)).mean(0)


@torch.inference_mode()
def usage(model: Model, text: Golden) -> Usage:
    """Return how much each expert is used on a text.

    An expert's activation is the sum over the tokens that chose it of the gate's weight times the
    norm of its output. REAP (Lasby et al. 2025, arXiv:2510.13999) takes the mean over these
    tokens; the sum also counts how many there are.
    """
    experts = len(model.blocks()[0].gate.weight)
    tokens = torch.zeros(len(model.blocks()), experts, dtype=torch.float64)
    activation = torch.zeros_like(tokens)

    def see(layer: int, module: Any, inputs: tuple[Tensor, ...]) -> None:
        hidden, index, weights = inputs  # (T, H), (T, k), (T, k)
        for expert in range(experts):
            rows, slots = torch.where((index == expert) & (weights > 0))
            active = neurons(module, expert, hidden[rows])
            out = functional.linear(active, module.down_proj[expert])
            tokens[layer, expert] += len(rows)
            activation[layer, expert] += (weights[rows, slots] * out.norm(dim=-1)).sum().double()

    with before(model, "experts", see):
        for batch in batches(text, BATCH):
            model.logits(batch)
    return Usage(tokens, activation)


@torch.inference_mode()
def gate_tokens(model: Model, text: Golden) -> tuple[Tokens, ...]:
    """Return what the gate of each layer sees of a text."""
    seen: list[list[Tensor]] = [[] for _ in model.blocks()]

    def see(layer: int, module: Any, inputs: tuple[Tensor, ...]) -> None:
        seen[layer].append(inputs[0].reshape(-1, inputs[0].shape[-1]))

    with before(model, "gate", see):
        for batch in batches(text, BATCH):
            model.logits(batch)
    tokens = []
    for block, states in zip(model.blocks(), seen, strict=True):
        hidden = torch.cat(states)
        tokens.append(Tokens(hidden.numpy(), block.gate.logits(hidden).numpy()))
    return tuple(tokens)


@contextmanager
def before(
    model: Model, what: str, see: Callable[[int, Any, tuple[Tensor, ...]], None]
) -> Iterator[None]:
    """Show `see` the inputs of each layer's gate or experts, with the layer's number."""
    with ExitStack() as hooks:
        for layer, block in enumerate(model.blocks()):

            def hook(module: Any, inputs: tuple[Tensor, ...], layer: int = layer) -> None:
                see(layer, module, inputs)

            module = getattr(block, what)
            hooks.callback(module.register_forward_pre_hook(hook).remove)
        yield
