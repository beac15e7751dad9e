"""Neurons of two experts, matched: an order changes nothing, and finds what was mixed up."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from moe_tuning.alignment import align, match

HIDDEN, WIDE = 6, 10


def expert(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"gate_proj": (WIDE, HIDDEN), "up_proj": (WIDE, HIDDEN), "down_proj": (HIDDEN, WIDE)}
    return {
        f"layers.0.{name}": torch.randn(shape, generator=generator)
        for name, shape in shapes.items()
    }


def answer(weights: dict[str, Tensor], x: Tensor) -> Tensor:
    gate, up, down = (weights[f"layers.0.{n}"] for n in ("gate_proj", "up_proj", "down_proj"))
    return (functional.silu(x @ gate.T) * (x @ up.T)) @ down.T


@given(st.integers(0, 1000))
def test_an_aligned_expert_computes_what_it_did(seed: int) -> None:
    one, x = expert(seed), torch.randn(5, HIDDEN, generator=torch.Generator().manual_seed(1))
    aligned = dict(align(one, expert(seed + 1), [0]))
    assert torch.allclose(answer(aligned, x), answer(one, x), atol=1e-4)


@given(st.integers(0, 1000), st.permutations(range(WIDE)))
def test_neurons_that_were_only_put_in_another_order_are_found(seed: int, order: list[int]) -> None:
    one = expert(seed)
    mixed = {n: w[:, order] if "down" in n else w[order] for n, w in one.items()}
    back = align(mixed, one, [0])
    assert all(torch.equal(back[name], weight) for name, weight in one.items())


@given(st.integers(0, 1000), st.integers(1, 12))
def test_each_neuron_is_matched_once(seed: int, size: int) -> None:
    similar = torch.randn(size, size, generator=torch.Generator().manual_seed(seed))
    assert sorted(match(similar).tolist()) == list(range(size))


def test_equal_neurons_are_matched_too() -> None:
    assert sorted(match(torch.ones(5, 5)).tolist()) == list(range(5))
