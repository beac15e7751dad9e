"""Distils a dense expert: in each layer one network that answers for whichever expert is out.

The rung `Dense` of the failover ladder puts it in the place of one chosen expert, under the weight
that the gate gave that one. It begins with the neurons that did most, and least squares: with each
chosen expert as likely to be out, the square of what is wrong in a layer's output is, with w a
weight, y an expert's output and d the dense one's,

    mean over tokens of Σ w² |d(x) - y(x)|², summed over the chosen,

whose least is where d(x) is the mean of the chosen outputs weighted by w²: one target for a token,
which counts as much as Σ w². Then all layers are trained together, with one expert out at a time,
to give the next-token distribution of the healthy model (Hinton et al. 2015, arXiv:1503.02531).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from moe_artifacts.errors import Refused
from moe_artifacts.golden import Golden
from moe_core.table import Rung
from moe_tuning.measure import BATCH, before
from moe_tuning.model import Model, batches, feed_forward, neurons
from moe_tuning.outage import without
from moe_tuning.parts import Weights
from moe_tuning.training import Recipe, Say, endless, share_of_peak

_RIDGE = 1e-4
_NAMES = ("gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True, slots=True)
class Seen:
    """What a layer is to learn: hidden states (T, H), targets (T, H), how much each counts (T,).

    `energy` (E, I) is how much each neuron of each expert did, by the same measure.
    """

    hidden: Tensor
    target: Tensor
    counts: Tensor
    energy: Tensor


def distill(model: Model, text: Golden, width: int, recipe: Recipe, say: Say) -> Weights:
    """Return the tensors of a dense expert of `width` neurons, by their names in an artifact.

    Raises Refused where it is wider than all experts together.
    """
    made: dict[str, Tensor] = {}
    for layer, (block, seen) in enumerate(zip(model.blocks(), watch(model, text), strict=True)):
        if width > seen.energy.numel():
            most = f"{seen.energy.numel()}, as wide as all experts together"
            raise Refused(f"--intermediate is {width}; it must be at most {most}")
        gate, up = _start(block.experts, seen, width)
        fitted = (gate, up, _least_squares(gate, up, seen))
        say(f"layer {layer}: {100 * (1 - _lost(fitted, seen)):.0f}% of what an expert answers")
        made |= {f"layers.{layer}.{n}": t for n, t in zip(_NAMES, fitted, strict=True)}
    _train(model, made, text, recipe, say)
    return made


def _train(model: Model, dense: Weights, text: Golden, recipe: Recipe, say: Say) -> None:
    """Lower KL(healthy || one expert out, answered by `dense`) per token by moving `dense` alone.

    In each sequence another expert is out, one that it chose: as likely as it is chosen there.
    """
    weights = [weight.requires_grad_(True) for weight in dense.values()]
    optimizer = torch.optim.AdamW(weights, betas=(0.9, 0.95), weight_decay=0.0)
    source = endless(text, recipe.batch, recipe.seed)
    generator = torch.Generator().manual_seed(recipe.seed)
    told: list[float] = []
    for step in range(recipe.steps):
        optimizer.param_groups[0]["lr"] = recipe.rate * share_of_peak(step, recipe.steps)
        tokens = next(source)
        with torch.no_grad(), _chosen(model) as chosen:
            healthy = model.logits(tokens).log_softmax(-1)
        lost = _draw(chosen, tokens, generator)
        with without(model, lost, Rung.DENSE, dense):
            other = model.logits(tokens).log_softmax(-1)
        away = functional.kl_div(other, healthy, log_target=True, reduction="sum")
        optimizer.zero_grad()
        torch.autograd.backward(away / tokens.numel())
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        told.append(away.item() / tokens.numel() / math.log(2))
        if len(told) >= recipe.steps / 4:
            bits, told = sum(told) / len(told), []
            say(f"step {step + 1} of {recipe.steps}: {bits:.3f} bits per token from healthy")
    for weight in weights:
        weight.requires_grad_(False)


@contextmanager
def _chosen(model: Model) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Give a list to which a forward appends each layer's choice, (T, k): experts, weights."""
    seen: list[tuple[Tensor, Tensor]] = []
    with before(model, "experts", lambda layer, module, given: seen.append((given[1], given[2]))):
        yield seen


def _draw(
    chosen: Sequence[tuple[Tensor, Tensor]], tokens: Tensor, generator: torch.Generator
) -> Tensor:
    """Return (T, 1): for each sequence one of the experts that it chose, at all of its tokens."""
    length, lost = tokens.shape[1], []
    for start in range(0, tokens.numel(), length):
        own = [(i[start : start + length], w[start : start + length]) for i, w in chosen]
        used = torch.cat([index[weights > 0] for index, weights in own])
        lost.append(used[torch.randint(len(used), (1,), generator=generator)])
    return torch.cat(lost).repeat_interleave(length)[:, None]


@torch.inference_mode()
def watch(model: Model, text: Golden) -> tuple[Seen, ...]:
    """Return what each layer is to learn from a text."""
    parts: list[list[tuple[Tensor, Tensor, Tensor]]] = [[] for _ in model.blocks()]
    energies = [torch.zeros(b.experts.down_proj.shape[::2]) for b in model.blocks()]

    def see(layer: int, module: Any, inputs: tuple[Tensor, ...]) -> None:
        hidden, index, weights = inputs  # (T, H), (T, k), (T, k)
        sums, squares = torch.zeros_like(hidden), weights.square()
        for expert in range(len(module.down_proj)):
            rows, slots = torch.where(index == expert)
            down, counts = module.down_proj[expert], squares[rows, slots][:, None]
            active = neurons(module, expert, hidden[rows])  # (n, I)
            sums.index_add_(0, rows, counts * (active @ down.T))
            energies[layer][expert] += (counts * active.square()).sum(0) * down.square().sum(0)
        counted = squares.sum(1)
        chosen = counted > 0
        target = sums[chosen] / counted[chosen, None]
        parts[layer].append((hidden[chosen], target, counted[chosen]))

    with before(model, "experts", see):
        for batch in batches(text, BATCH):
            model.logits(batch)
    joined = ([torch.cat(some) for some in zip(*part, strict=True)] for part in parts)
    return tuple(
        Seen(hidden, target, counts, energy)
        for (hidden, target, counts), energy in zip(joined, energies, strict=True)
    )


def _start(experts: Any, seen: Seen, width: int) -> tuple[Tensor, Tensor]:
    """Return gate_proj and up_proj (width, H) of the neurons that did most, of all experts."""
    flat = seen.energy.flatten().argsort(descending=True, stable=True)[:width]
    expert, neuron = flat // seen.energy.shape[1], flat % seen.energy.shape[1]
    gate, up = experts.gate_up_proj.chunk(2, dim=1)  # (E, I, H) each
    return gate[expert, neuron].detach().clone(), up[expert, neuron].detach().clone()


def _least_squares(gate: Tensor, up: Tensor, seen: Seen) -> Tensor:
    """Return the down_proj (H, I) that is best for these neurons, with a small ridge."""
    active = feed_forward(gate, up, None, seen.hidden).double()  # (T, I)
    counted = active * seen.counts[:, None].double()
    hessian = active.T @ counted
    ridge = _RIDGE * hessian.diagonal().mean().clamp_min(1e-12) * torch.eye(len(hessian))
    solved: Tensor = torch.linalg.solve(hessian + ridge, counted.T @ seen.target.double())
    return solved.T.float().contiguous()


def _lost(weights: tuple[Tensor, Tensor, Tensor], seen: Seen) -> float:
    """Return the share of the targets' square that the network does not give."""
    wrong = feed_forward(*weights, seen.hidden) - seen.target
    errors, all_ = ((seen.counts * x.square().sum(1)).sum() for x in (wrong, seen.target))
    return float(errors / all_)
