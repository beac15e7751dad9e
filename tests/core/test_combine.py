"""The combine has one set of bits, in numpy and in torch."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from moe_core.combine import combine
from moe_core.dtypes import BFLOAT16, ELEMENT_TYPES, FLOAT32, ElementType
from moe_core.kernel import combine_torch, torch_dtype

Array = NDArray[np.generic]

MIXES = [
    pytest.param(rows, weights, out, id=f"{rows.name} x {weights.name} -> {out.name}")
    for rows, weights, out in product(ELEMENT_TYPES, repeat=3)
]


def to_torch(array: Array, element: ElementType) -> torch.Tensor:
    raw = torch.frombuffer(bytearray(array.tobytes()), dtype=torch_dtype(element))
    return raw.view(array.shape)


def same_bits(ours: Array, theirs: torch.Tensor) -> bool:
    """Equal bit for bit, any NaN being as good as any other."""
    mine = torch.frombuffer(bytearray(ours.tobytes()), dtype=theirs.dtype).view(theirs.shape)
    nan = mine.isnan()
    bits = torch.int16 if mine.element_size() == 2 else torch.int32
    return torch.equal(nan, theirs.isnan()) and torch.equal(
        mine.view(bits)[~nan], theirs.contiguous().view(bits)[~nan]
    )


def extremes(rng: np.random.Generator, shape: tuple[int, ...], element: ElementType) -> Array:
    """Any bit pattern at all: subnormal and huge values, zeros of both signs, NaN, infinities."""
    raw = rng.integers(0, 256, size=(*shape, element.bytes), dtype=np.uint8)
    return raw.view(element.numpy)[..., 0]


@pytest.mark.parametrize(("rows", "weights", "out"), MIXES)
def test_numpy_and_torch_give_equal_bits(
    rows: ElementType, weights: ElementType, out: ElementType
) -> None:
    rng = np.random.default_rng(1)
    for top_k, draw in product((1, 2, 8), ("normal", "extreme")):
        if draw == "normal":
            r: Array = rng.standard_normal((17, top_k, 33)).astype(rows.numpy)
            w: Array = rng.random((17, top_k)).astype(weights.numpy)
        else:
            r, w = extremes(rng, (17, top_k, 33), rows), extremes(rng, (17, top_k), weights)
        ours = combine(r, w, out.numpy)
        theirs = combine_torch(to_torch(r, rows), to_torch(w, weights), torch_dtype(out))
        assert same_bits(ours, theirs), (top_k, draw)


def test_products_are_rounded_to_the_promoted_dtype_and_the_sum_once() -> None:
    one, tiny = 1.0, 2.0**-7
    rows = np.array([[[one + tiny], [one]]], dtype=BFLOAT16.numpy)
    weights = np.array([[one + tiny, 2.0**-9]], dtype=BFLOAT16.numpy)
    rounded_product = np.float32((one + tiny) ** 2).astype(BFLOAT16.numpy).astype(np.float32)
    assert rounded_product != np.float32((one + tiny) ** 2)
    assert combine(rows, weights, FLOAT32.numpy)[0, 0] == rounded_product + np.float32(2.0**-9)


def test_the_sum_is_taken_in_slot_order() -> None:
    rows = np.array([[[2.0**24], [1.0], [1.0]]], dtype=np.float32)
    weights = np.ones((1, 3), dtype=np.float32)
    assert combine(rows, weights, FLOAT32.numpy)[0, 0] == 2.0**24
    assert combine(rows[:, ::-1], weights, FLOAT32.numpy)[0, 0] == 2.0**24 + 2


@given(st.integers(1, 40), st.integers(1, 8), st.integers(0, 2**32 - 1))
def test_a_token_does_not_depend_on_its_neighbours(tokens: int, top_k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows: Array = rng.standard_normal((tokens, top_k, 8)).astype(BFLOAT16.numpy)
    weights: Array = rng.random((tokens, top_k)).astype(np.float32)
    together = combine(rows, weights, BFLOAT16.numpy)
    at = int(rng.integers(tokens))
    alone = combine(rows[at : at + 1], weights[at : at + 1], BFLOAT16.numpy)
    assert together[at].tobytes() == alone.tobytes()


@pytest.mark.parametrize(
    ("rows", "weights"),
    [
        pytest.param((2, 3), (2, 3), id="rows without k"),
        pytest.param((2, 3, 4), (2, 2), id="another k"),
        pytest.param((2, 3, 4), (3, 2), id="transposed"),
        pytest.param((2, 0, 4), (2, 0), id="no slot"),
    ],
)
def test_wrong_shapes_are_refused(rows: tuple[int, ...], weights: tuple[int, ...]) -> None:
    message = "they must be"
    with pytest.raises(ValueError, match=message):
        combine(np.zeros(rows, np.float32), np.zeros(weights, np.float32), FLOAT32.numpy)
    with pytest.raises(ValueError, match=message):
        combine_torch(torch.zeros(rows), torch.zeros(weights), torch.float32)


def test_no_tokens_are_fine() -> None:
    assert combine(np.zeros((0, 2, 4), np.float32), np.zeros((0, 2)), FLOAT32.numpy).shape == (0, 4)
