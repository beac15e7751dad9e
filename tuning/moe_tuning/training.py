"""Trains chosen experts and rows of the gate of a model, and nothing else of it.

The text is the caller's. The same seed, threads, processor and libraries give the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from moe_artifacts.golden import Golden
from moe_tuning.guide import Guide, watch_gates
from moe_tuning.measure import next_token_loss
from moe_tuning.model import Model, batches

Say = Callable[[str], None]
_TOLD = 4


@dataclass(frozen=True, slots=True)
class Recipe:
    """Steps of Adam, its peak rate, sequences of each text in a step, seed of their order."""

    steps: int
    rate: float = 3e-3
    batch: int = 4
    seed: int = 0


def train(
    model: Model,
    experts: Sequence[int],
    rows: Sequence[int],
    texts: Sequence[Golden],
    recipe: Recipe,
    say: Say,
    guide: Guide | None = None,
) -> None:
    """Lower the next-token loss on `texts` by moving these experts and rows of the gate.

    A step reads `batch` sequences of each text. With a guide, the first text is also led to the
    last row, and all others away from it. Without weight decay, what has no gradient does not
    move at all.
    """
    with _moving(model, experts, rows) as weights, watch_gates(model) as gates:
        optimizer = torch.optim.AdamW(weights, betas=(0.9, 0.95), weight_decay=0.0)
        sources = [endless(text, recipe.batch, recipe.seed + i) for i, text in enumerate(texts)]
        for step in range(recipe.steps):
            for group in optimizer.param_groups:
                group["lr"] = recipe.rate * share_of_peak(step, recipe.steps)
            losses = [
                _losses(model, next(source), gates, guide, finds=number == 0)
                for number, source in enumerate(sources)
            ]
            own, led = (torch.stack(some) for some in zip(*losses, strict=True))
            optimizer.zero_grad()
            torch.autograd.backward(own.mean() + led.sum())
            nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            if step % max(1, recipe.steps // _TOLD) == 0:
                told = ", ".join(f"{loss / math.log(2):.3f}" for loss in own.tolist())
                say(f"step {step} of {recipe.steps}: {told} bits per token")


def _losses(
    model: Model, tokens: Tensor, gates: list[Tensor], guide: Guide | None, *, finds: bool
) -> tuple[Tensor, Tensor]:
    """Return the next-token loss of a batch, and what its way to the last row costs."""
    gates.clear()
    loss = next_token_loss(model.logits(tokens), tokens)
    return loss, torch.zeros(()) if guide is None else guide.loss(gates, finds=finds)


@contextmanager
def _moving(
    model: Model, experts: Sequence[int], rows: Sequence[int]
) -> Iterator[list[nn.Parameter]]:
    """Let these experts and rows of the gate learn meanwhile; give the weights that hold them."""
    held = [(weight, rows) for block in model.blocks() for weight in block.gate.parameters()]
    for block in model.blocks():
        held += [(w, experts) for w in (block.experts.gate_up_proj, block.experts.down_proj)]
    moved = [(weight, some) for weight, some in held if some]
    hooks = [_free(weight, some) for weight, some in moved]
    try:
        yield [weight for weight, _ in moved]
    finally:
        for hook in hooks:
            hook.remove()
        for weight, _ in moved:
            weight.requires_grad_(False)


def _free(weight: nn.Parameter, rows: Sequence[int]) -> RemovableHandle:
    """Let only these rows of the first dimension learn."""
    mask = torch.zeros(len(weight))
    mask[list(rows)] = 1.0
    mask = mask.view(-1, *[1] * (weight.dim() - 1))
    weight.requires_grad_(True)
    handle: RemovableHandle = weight.register_hook(lambda gradient: gradient * mask)  # type: ignore[no-untyped-call]
    return handle


def endless(text: Golden, size: int, seed: int) -> Iterator[Tensor]:
    """Give all batches of a text in one random order after another."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(len(text.sequences), generator=generator).tolist()
        shuffled = Golden(text.vocab, text.slices, tuple(text.sequences[i] for i in order))
        yield from batches(shuffled, size)


def share_of_peak(step: int, steps: int) -> float:
    """Return the learning rate as a share of its peak: a short rise, then a cosine to a 20th."""
    warm = max(1, min(50, steps // 10))
    if step < warm:
        return (step + 1) / warm
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * (step - warm) / (steps - warm)))
