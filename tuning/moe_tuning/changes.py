"""The changes themselves: which experts go, what becomes of them, and what is learned.

Each takes the parts of a version, and returns those of the next; the model is theirs to compute
with, and holds anything afterwards. Nothing is read or written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from moe_artifacts.errors import Refused
from moe_artifacts.golden import Golden
from moe_artifacts.metadata import BIAS, ID, SELECTION_BIAS, WEIGHT
from moe_artifacts.parts import GATE
from moe_core.policy import Kind, Policy
from moe_tuning.alignment import align
from moe_tuning.guide import Guide
from moe_tuning.measure import Usage, gate_tokens
from moe_tuning.model import Model
from moe_tuning.parts import Parts, Weights
from moe_tuning.router import rivals
from moe_tuning.rows import Array, Tokens, fit_row, fit_union
from moe_tuning.succession import groups_of, succeed
from moe_tuning.training import Recipe, Say, train


def least_used(parts: Parts, seen: Usage, count: int) -> tuple[str, ...]:
    """Return the experts with the smallest share of activation, least first, of each group as many.

    Raises Refused where that cannot be.
    """
    shares, groups = seen.shares.tolist(), groups_of(parts.policy, parts.ids)
    if count % len(groups):
        right = f"a multiple of {len(groups)}, so many groups has the gate, of equal size"
        raise Refused(f"--count is {count}; it must be {right}")
    each = count // len(groups)
    ordered = (sorted(group, key=lambda name: shares[parts.row(name)]) for group in groups)
    least = [name for group in ordered for name in group[:each]]
    return tuple(sorted(least, key=lambda name: shares[parts.row(name)]))


def most_used(parts: Parts, seen: Usage) -> str:
    """Return the expert with the greatest share of activation."""
    return parts.ids[int(seen.shares.argmax())]


def prune(parts: Parts, gone: Sequence[str]) -> Parts:
    """Return a gate without these experts; those left get the weight, as its policy has it.

    Raises Refused for an expert that is not listed, and where what is left does not fit the policy.
    """
    for name in gone:
        parts.row(name)
    left = {name: weights for name, weights in parts.experts.items() if name not in gone}
    _check_enough(len(left), parts, f"without {', '.join(gone)}")
    policy = succeed(parts.policy, parts.ids, {name: (name,) for name in left})
    rows = [parts.row(name) for name in left]
    return parts.with_rows({name: w[rows].clone() for name, w in parts.gate.items()}, left, policy)


def merge(
    model: Model, parts: Parts, merged: Sequence[str], name: str, seen: Usage, text: Golden
) -> Parts:
    """Return a gate in which one expert `name` takes the place of several.

    In each layer it is their average, weighted by their activation there, after their neurons
    were aligned to those of the first (M-SMoE: Li et al. 2024, arXiv:2310.01334). Its row gives
    it, as nearly as a row can, the logit of all of them together (`fit_union`); what else the gate
    has learned of them is averaged as they are. Raises Refused where it cannot be.
    """
    rows = tuple(parts.row(expert) for expert in merged)
    _check_new(name, parts)
    _check_enough(len(parts.ids) - len(rows) + 1, parts, f"with {', '.join(merged)} as one")
    kept = [e for e in parts.ids if e == merged[0] or e not in merged]
    heirs = {(name if e == merged[0] else e): (e,) for e in kept} | {name: tuple(merged)}
    used = dict(zip(parts.ids, seen.shares.tolist(), strict=True))
    policy = succeed(parts.policy, parts.ids, heirs, used)
    shares = seen.activation[:, list(rows)].clamp_min(1e-9)
    shares = (shares / shares.sum(1, keepdim=True)).float()  # (L, merged)
    first, layers = parts.experts[merged[0]], parts.gate_metadata.layers
    alike = [first, *(align(parts.experts[e], first, layers) for e in merged[1:])]
    average = {
        tensor: _average([weights[tensor] for weights in alike], shares[_layer(tensor)])
        for tensor in first
    }
    experts = {e: average if e == name else parts.experts[e] for e in heirs}
    order = [parts.row(e) for e in kept]
    return parts.with_rows(_union(model, parts, rows, order, shares, text), experts, policy)


def _union(
    model: Model,
    parts: Parts,
    merged: tuple[int, ...],
    order: list[int],
    shares: Tensor,
    text: Golden,
) -> Weights:
    """Return the gate's rows in this order, the first merged one being that of all of them."""
    gate, place = {}, order.index(merged[0])
    for layer, tokens in enumerate(gate_tokens(model, text)):
        for name, tensor in parts.learned(layer).items():
            rows = tensor[order].clone()
            rows[place] = _average(list(tensor[list(merged)]), shares[layer])
            gate[f"layers.{layer}.{name}"] = rows
        _put_row(gate, layer, place, parts, lambda seen: fit_union(seen, merged), tokens)
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
    if parts.policy.kind is Kind.EXPERT_CHOICE:
        why = "each expert takes as many rows of any text, so none is kept out of familiar text"
        raise Refused(f"the gate's policy is {parts.policy.kind}: {why}")
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
    """Return parts with one expert more, its rows fitted to what the model computes now.

    It is selected by the mean of the others' selection bias; noise it gets as its source does.
    """
    heirs = {name: (name,) for name in parts.ids} | {growth.name: ()}
    policy = succeed(parts.policy, parts.ids, heirs)
    finds, passes = (gate_tokens(model, text) for text in texts)
    gate: dict[str, Tensor] = {}
    for layer, seen in enumerate(zip(finds, passes, strict=True)):
        learned = parts.learned(layer)
        for name, tensor in learned.items():
            new = tensor[parts.row(growth.source)]
            new = tensor.mean(0) if name == SELECTION_BIAS else new
            gate[f"layers.{layer}.{name}"] = torch.cat([tensor, new[None]])
        first, second = (_rivals(policy, learned.get(SELECTION_BIAS), tokens) for tokens in seen)
        _put_row(
            gate,
            layer,
            len(parts.ids),
            parts,
            lambda a, b: fit_row(a, b, policy.top_k, keep=growth.keep, margin=growth.margin),
            first,
            second,
        )
    return parts.with_rows(gate, {**parts.experts, growth.name: weights}, policy)


def _rivals(policy: Policy, bias: Tensor | None, tokens: Tokens) -> Tokens:
    """Return what tokens look like to a new expert: the logits that it needs against each other."""
    if bias is None:
        return tokens
    needed = rivals(policy, torch.from_numpy(tokens.logits), bias, float(bias.mean()))
    return replace(tokens, logits=needed.numpy())


def _put_row(
    gate: dict[str, Tensor],
    layer: int,
    place: int,
    parts: Parts,
    fit: Callable[..., Array],
    *tokens: Tokens,
) -> None:
    """Fit a row of the weight to tokens, and with it its bias where the gate has learned some."""
    biased = BIAS in parts.learned(layer)
    fitted = _row(fit(*(t.with_one() if biased else t for t in tokens)))
    if biased:
        fitted, gate[f"layers.{layer}.{BIAS}"][place] = fitted[:-1], fitted[-1]
    gate[f"layers.{layer}.{WEIGHT}"][place] = fitted


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
