"""Packed matrices multiply as plain ones do, whatever the rows are; others are left as they are."""

from __future__ import annotations

import pytest
import torch

from moe_core.weights import Packed, Plain, can_pack, weights

OUT, IN = 96, 64
ROWS = torch.randn((17, IN), generator=torch.Generator().manual_seed(1)).bfloat16()
MATRIX = torch.randn((OUT, IN), generator=torch.Generator().manual_seed(2)).bfloat16()

packable = pytest.mark.skipif(not can_pack(), reason="this machine has no packed bfloat16")


@packable
@torch.inference_mode()
@pytest.mark.parametrize(
    "rows",
    [
        pytest.param(ROWS, id="some"),
        pytest.param(ROWS[:1], id="one"),
        pytest.param(ROWS[:0], id="none"),
        pytest.param(ROWS[::3], id="every third"),
        pytest.param(torch.cat((ROWS, ROWS), dim=1)[:, :IN], id="parts of longer ones"),
        pytest.param(ROWS[:, :16].repeat(4, 4).T.contiguous().T[:17], id="columns first"),
    ],
)
def test_a_packed_matrix_multiplies_as_a_plain_one(rows: torch.Tensor) -> None:
    got, exact = weights(MATRIX)(rows), rows.double() @ MATRIX.double().T
    assert got.shape == (len(rows), OUT)
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got.double(), exact, rtol=2**-8, atol=2**-6)
    torch.testing.assert_close(got, Plain(MATRIX)(rows), rtol=2**-7, atol=2**-6)


@packable
@torch.inference_mode()
def test_what_is_not_finite_stays_in_its_row() -> None:
    rows = ROWS.clone()
    rows[3], rows[5, 0] = float("nan"), float("inf")
    got, without = weights(MATRIX)(rows), weights(MATRIX)(ROWS)
    assert got[3].isnan().all()
    assert not got[5].isfinite().any()
    others = [n for n in range(len(rows)) if n not in (3, 5)]
    assert torch.equal(got[others], without[others])


@packable
def test_the_matrix_may_go_once_it_is_packed() -> None:
    matrix = MATRIX.clone()
    packed = weights(matrix)
    before = packed(ROWS)
    matrix.zero_()
    assert isinstance(packed, Packed)
    assert torch.equal(packed(ROWS), before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_other_dtypes_stay_plain(dtype: torch.dtype) -> None:
    matrix = MATRIX.to(dtype)
    assert isinstance(weights(matrix), Plain)
    assert torch.equal(weights(matrix)(ROWS.to(dtype)), ROWS.to(dtype) @ matrix.T)


def test_a_torch_without_the_functions_packs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    can_pack.cache_clear()
    try:
        monkeypatch.setattr(torch.ops, "mkldnn", object())
        assert isinstance(weights(MATRIX), Plain)
    finally:
        can_pack.cache_clear()
