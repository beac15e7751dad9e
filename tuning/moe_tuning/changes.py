"""The changes themselves: which experts go, what becomes of them, and what is learned.

Each takes the parts of a version, and returns those of the next; the model is theirs to compute
with, and holds anything afterwards. Nothing is read or written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from moe_artifacts.errors import Refused
from moe_artifacts.golden import Golden
from moe_artifacts.metadata import ID
from moe_artifacts.parts import GATE
from moe_tuning.alignment import align
from moe_tuning.guide import Guide
from moe_tuning.measure import Usage, gate_tokens
from moe_tuning.model import Model
from moe_tuning.parts import Parts, Weights
from moe_tuning.rows import Array, fit_row, fit_union
from moe_tuning.training import Recipe, Say, train


def least_used(parts: Parts, seen: Usage, count: int) -> tuple[str, ...]:
    """Return the experts with the smallest share of activation, least first."""
    shares = seen.shares.tolist()
    return tuple(sorted(parts.ids, key=lambda name: shares[parts.row(name)])[:count])


def most_used(parts: Parts, seen: Usage) -> str:
    """Return the expert with the greatest share of activation."""
    return parts.ids[int(seen.shares.argmax())]


def prune(parts: Parts, gone: Sequence[str]) -> Parts:
    """Return a gate without these experts; softmax over those left gives them the weight.

    Raises Refused for an expert that is not listed, and where fewer than top-k would be left.
    """
    for name in gone:
        parts.row(name)
    left = {name: weights for name, weights in parts.experts.items() if name not in gone}
    _check_enough(len(left), parts, f"without {', '.join(gone)}")
    rows = [parts.row(name) for name in left]
    return parts.with_rows({name: w[rows].clone() for name, w in parts.gate.items()}, left)


def merge(
    model: Model, parts: Parts, merged: Sequence[str], name: str, seen: Usage, text: Golden
) -> Parts:
    """Return a gate in which one expert `name` takes the place of several.

    In each layer it is their average, weighted by their activation there, after their neurons
    were aligned to those of the first (M-SMoE: Li et al. 2024, arXiv:2310.01334). Its row gives
    it, as nearly as a row can, the logit of all of them together (`fit_union`). Raises Refused
    where it cannot be.
    """
    rows = tuple(parts.row(expert) for expert in merged)
    _check_new(name, parts)
    _check_enough(len(parts.ids) - len(rows) + 1, parts, f"with {', '.join(merged)} as one")
    shares = seen.activation[:, list(rows)].clamp_min(1e-9)
    shares = (shares / shares.sum(1, keepdim=True)).float()  # (L, merged)
    first, layers = parts.experts[merged[0]], parts.gate_metadata.layers
    alike = [first, *(align(parts.experts[e], first, layers) for e in merged[1:])]
    average = {
        tensor: _average([weights[tensor] for weights in alike], shares[_layer(tensor)])
        for tensor in first
    }
    experts = {
        (name if e == merged[0] else e): (average if e == merged[0] else weights)
        for e, weights in parts.experts.items()
        if e == merged[0] or e not in merged
    }
    order = [rows[0] if e == name else parts.row(e) for e in experts]
    return parts.with_rows(_union_rows(model, parts, rows, order, text), experts)


def _union_rows(
    model: Model, parts: Parts, merged: tuple[int, ...], order: list[int], text: Golden
) -> Weights:
    """Return the rows in this order, the first merged one being that of all of them."""
    gate = {}
    for layer, tokens in enumerate(gate_tokens(model, text)):
        weight = parts.gate[f"layers.{layer}.weight"][order].clone()
        weight[order.index(merged[0])] = _row(fit_union(tokens, merged))
        gate[f"layers.{layer}.weight"] = weight
    return gate


@dataclass(frozen=True, slots=True)
class Growth:
    """How an expert is grown: as a copy of which, called what, and how a row is fitted."""

    source: str
    name: str
    keep: float = 10.0
    margin: float = 1.0


def grow(
    model: Model,
    parts: Parts,
    growth: Growth,
    texts: tuple[Golden, Golden],
    recipe: Recipe,
    say: Say,
) -> Parts:
    """Return parts with one expert more, that tokens of the first text find, of the second not.

    It begins as a copy, with rows that are fitted (`fit_row`). Then it and its rows are trained
    on both texts, which a guide keeps apart (`Guide`); what familiar tokens find it all the same
    it is to serve, too. All other weights stay as they are, and what does not choose it is
    computed as before: no forgetting. Raises Refused where it cannot be.
    """
    parts.row(growth.source)
    _check_new(growth.name, parts)
    copy = parts.experts[growth.source]
    grown = _with_expert(model, parts, growth, copy, texts)
    model.install(grown)
    number = len(parts.ids)
    guide = Guide(parts.gate_metadata.top_k, keep=growth.keep)
    train(model, [number], [number], texts, recipe, say, guide)
    return grown.with_rows(model.gate(), {**parts.experts, growth.name: model.expert(number)})


def finetune(
    model: Model,
    parts: Parts,
    names: Sequence[str],
    texts: Sequence[Golden],
    recipe: Recipe,
    say: Say,
) -> Parts:
    """Return parts of which the named ones (experts, `gate`) were trained on the texts.

    Raises Refused for one that there is not.
    """
    experts = [name for name in names if name != GATE]
    rows = range(len(parts.ids)) if GATE in names else ()
    numbers = [parts.row(name) for name in experts]
    train(model, numbers, rows, texts, recipe, say)
    trained = {name: model.expert(parts.row(name)) for name in experts}
    kept = {name: trained.get(name, weights) for name, weights in parts.experts.items()}
    return replace(parts, gate=model.gate() if rows else parts.gate, experts=kept)


def _with_expert(
    model: Model, parts: Parts, growth: Growth, weights: Weights, texts: tuple[Golden, Golden]
) -> Parts:
    """Return parts with one expert more, its rows fitted to what the model computes now."""
    finds, passes = (gate_tokens(model, text) for text in texts)
    gate = {}
    for layer, seen in enumerate(zip(finds, passes, strict=True)):
        old = parts.gate[f"layers.{layer}.weight"]
        first, second = (replace(t, logits=t.logits[:, : len(old)]) for t in seen)
        top_k = parts.gate_metadata.top_k
        row = fit_row(first, second, top_k, keep=growth.keep, margin=growth.margin)
        gate[f"layers.{layer}.weight"] = torch.cat([old, _row(row)[None]])
    return parts.with_rows(gate, {**parts.experts, growth.name: weights})


def _average(tensors: Sequence[Tensor], shares: Tensor) -> Tensor:
    return torch.stack([t * s for t, s in zip(tensors, shares, strict=True)]).sum(0)


def _layer(tensor: str) -> int:
    return int(tensor.split(".")[1])


def _row(fitted: Array) -> Tensor:
    return torch.from_numpy(fitted.astype(np.float32))


def _check_new(name: str, parts: Parts) -> None:
    if name in parts.ids or name in (GATE, "mixture") or not ID.fullmatch(name):
        right = "at most 50 lower-case letters, digits and hyphens, of no other part"
        raise Refused(f"--id is {name!r:.60}; it must be {right}")


def _check_enough(left: int, parts: Parts, when: str) -> None:
    if left < parts.gate_metadata.top_k:
        top_k = parts.gate_metadata.top_k
        raise Refused(f"{when} {left} experts would be left; each token is sent to {top_k}")
