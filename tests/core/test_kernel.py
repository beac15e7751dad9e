"""A row's answer never depends on what else is in the batch."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from moe_core.exactness import TILE_SIZES, fast, prove
from moe_core.kernel import ExpertKernel, Rule, cut, one_thread
from tests.support.devices import DEVICES

HIDDEN, INTERMEDIATE = 64, 96
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
CPU = torch.device("cpu")
BITS = {2: torch.int16, 4: torch.int32}


def weights(
    dtype: torch.dtype, device: torch.device = CPU
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    gate = torch.randn(INTERMEDIATE, HIDDEN, generator=draw) * HIDDEN**-0.5
    up = torch.randn(INTERMEDIATE, HIDDEN, generator=draw) * HIDDEN**-0.5
    down = torch.randn(HIDDEN, INTERMEDIATE, generator=draw) * INTERMEDIATE**-0.5
    return gate.to(device, dtype), up.to(device, dtype), down.to(device, dtype)


@cache
def exact(dtype: torch.dtype, device: torch.device = CPU) -> ExpertKernel:
    rule = prove(dtype, HIDDEN, INTERMEDIATE, device)
    return ExpertKernel(*weights(dtype, device), rule)


def rows(count: int, seed: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(count, HIDDEN, generator=torch.Generator().manual_seed(seed)).to(dtype)


def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    bits = BITS[one.element_size()]
    return torch.equal(one.view(bits), other.view(bits))


@pytest.mark.parametrize("device", DEVICES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(1, 600),
    at=st.floats(0, 1, exclude_max=True),
    seed=st.integers(0, 2**31),
    hostile=st.sampled_from([None, float("nan"), float("inf"), -6e4, 0.0]),
)
def test_a_row_alone_equals_the_row_in_any_batch(
    device: torch.device,
    dtype: torch.dtype,
    batch: int,
    at: float,
    seed: int,
    hostile: float | None,
) -> None:
    kernel = exact(dtype, device)
    together = rows(batch, seed, dtype).to(device)
    position = int(at * batch)
    row = together[position].clone()
    if hostile is not None:
        together[:] = hostile
        together[position] = row
    assert same_bits(kernel(together)[position], kernel(row[None])[0])


@pytest.mark.parametrize("device", DEVICES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
@given(offset=st.integers(0, 70))
@settings(max_examples=30, deadline=None)
def test_the_place_in_memory_does_not_matter(
    device: torch.device, dtype: torch.dtype, offset: int
) -> None:
    kernel = exact(dtype, device)
    batch = rows(32, 7, dtype).to(device)
    room = torch.zeros(batch.numel() + offset, dtype=dtype, device=device)
    moved = room[offset:].view(batch.shape)
    moved.copy_(batch)
    assert same_bits(kernel(moved), kernel(batch))


def test_weights_in_another_place_give_the_same_bits() -> None:
    gate, up, down = weights(torch.float32)
    fused = torch.cat((torch.zeros(1, HIDDEN), gate, up))
    rule = exact(torch.float32).rule
    moved = ExpertKernel(fused[1 : 1 + INTERMEDIATE], fused[1 + INTERMEDIATE :], down, rule)
    batch = rows(50, 3, torch.float32)
    assert same_bits(moved(batch), exact(torch.float32)(batch))


@pytest.mark.parametrize("device", DEVICES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_function_is_swiglu(device: torch.device, dtype: torch.dtype) -> None:
    gate, up, down = (w.double() for w in weights(dtype))
    batch = rows(40, 5, dtype)
    x = batch.double()
    wanted = (functional.silu(x @ gate.T) * (x @ up.T)) @ down.T
    tolerance = {torch.float32: 1e-5, torch.bfloat16: 0.05, torch.float16: 0.01}[dtype]
    quick = ExpertKernel(*weights(dtype, device), fast(device))
    for kernel in (exact(dtype, device), quick):
        found = kernel(batch.to(device)).cpu().double()
        assert torch.allclose(found, wanted, atol=tolerance, rtol=tolerance)


def test_an_expert_computes_with_one_thread_and_gives_the_others_back() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with one_thread():
            assert torch.get_num_threads() == 1
        exact(torch.float32)(rows(3, 1, torch.float32))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_no_gradients_are_kept() -> None:
    batch = rows(2, 1, torch.float32).requires_grad_()
    assert not exact(torch.float32)(batch).requires_grad


@given(st.integers(0, 3000), st.lists(st.sampled_from(TILE_SIZES), min_size=1, unique=True))
def test_tiles_cover_each_row_once_in_order(count: int, sizes: list[int]) -> None:
    tiles = sorted(sizes)
    pieces = cut(count, tiles)
    covered = [row for start, n, _ in pieces for row in range(start, start + n)]
    assert covered == list(range(count))
    assert all(tile in tiles for _, _, tile in pieces)
    assert all(n == tile for _, n, tile in pieces[:-1])
    assert sum(tile for _, _, tile in pieces) - count < tiles[0]


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        pytest.param(0, [], id="nothing"),
        pytest.param(1, [(0, 1, 4)], id="padded to the smallest"),
        pytest.param(32, [(0, 32, 32)], id="just one"),
        pytest.param(45, [(0, 32, 32), (32, 8, 8), (40, 4, 4), (44, 1, 4)], id="largest first"),
        pytest.param(70, [(0, 32, 32), (32, 32, 32), (64, 4, 4), (68, 2, 4)], id="several"),
    ],
)
def test_cut(count: int, expected: list[tuple[int, int, int]]) -> None:
    assert cut(count, (4, 8, 32)) == expected


@pytest.mark.parametrize(
    ("shapes", "dtype", "message"),
    [
        pytest.param(((8, 4), (8, 4), (8, 4)), torch.float32, "they must be", id="down not turned"),
        pytest.param(((8, 4), (4, 8), (4, 8)), torch.float32, "they must be", id="up turned"),
        pytest.param(((8,), (8,), (8,)), torch.float32, "they must be", id="vectors"),
        pytest.param(((8, 4), (8, 4), (4, 8)), torch.float64, "dtype is torch.float64", id="dtype"),
    ],
)
def test_wrong_weights_are_refused(
    shapes: tuple[tuple[int, ...], ...], dtype: torch.dtype, message: str
) -> None:
    gate, up, down = (torch.zeros(shape, dtype=dtype) for shape in shapes)
    with pytest.raises(ValueError, match=message):
        ExpertKernel(gate, up, down, fast())


def test_mixed_dtypes_of_weights_are_refused() -> None:
    gate, up, down = weights(torch.float32)
    with pytest.raises(ValueError, match="one dtype"):
        ExpertKernel(gate, up.to(torch.bfloat16), down, fast())


@pytest.mark.parametrize(
    "batch",
    [
        pytest.param(torch.zeros(3, HIDDEN + 1), id="hidden size"),
        pytest.param(torch.zeros(HIDDEN), id="no rows"),
        pytest.param(torch.zeros(3, HIDDEN, dtype=torch.bfloat16), id="dtype"),
    ],
)
def test_wrong_rows_are_refused(batch: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"they must be \(T, 64\) torch.float32"):
        exact(torch.float32)(batch)


def test_a_rule_cuts_as_it_says() -> None:
    kernel = ExpertKernel(*weights(torch.float32), Rule((16, 64), "test"))
    whole = exact(torch.float32)
    batch = rows(90, 11, torch.float32)
    assert torch.allclose(kernel(batch), whole(batch), atol=1e-5)
    assert np.all(np.isfinite(kernel(batch).numpy()))
