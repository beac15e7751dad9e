"""The proof of exactness finds what holds, and does not let pass what does not."""

from __future__ import annotations

import pytest
import torch

from moe_core.exactness import NotExact, choose, fast, prove
from moe_core.kernel import ExpertKernel
from tests.support.devices import DEVICES


class TouchedByNeighbours(ExpertKernel):
    """Adds to each row a little of the whole batch."""

    def _forward(self, rows: torch.Tensor) -> torch.Tensor:
        answers = super()._forward(rows)
        return answers + answers.nan_to_num(0, 0, 0).mean() * 1e-3


class TouchedByPosition(ExpertKernel):
    """The last row of a tile takes another way."""

    def _forward(self, rows: torch.Tensor) -> torch.Tensor:
        answers = super()._forward(rows)
        answers[-1] *= 1 + 2**-7
        return answers


class OtherLoopBelow16Rows(ExpertKernel):
    """As some processors do in float32; without a product, in which this one may do others."""

    def _forward(self, rows: torch.Tensor) -> torch.Tensor:
        return rows * (1 + 2**-7 if rows.shape[0] < 16 else 1)


class OtherLoopAbove32Rows(ExpertKernel):
    """As some processors do in bfloat16."""

    def _forward(self, rows: torch.Tensor) -> torch.Tensor:
        return rows * (1 + 2**-7 if rows.shape[0] > 32 else 1)


class LeaksPadding(ExpertKernel):
    """NaN in one row reaches the next, as 0 * NaN does in a sum over rows."""

    def _forward(self, rows: torch.Tensor) -> torch.Tensor:
        return super()._forward(rows) + 0 * rows.roll(1, 0).sum(dim=1, keepdim=True)


@pytest.mark.parametrize("kernel", [TouchedByNeighbours, TouchedByPosition, LeaksPadding])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("device", DEVICES, ids=str)
def test_a_kernel_that_is_not_exact_is_found_out(
    kernel: type[ExpertKernel], dtype: torch.dtype, device: torch.device
) -> None:
    with pytest.raises(NotExact, match=r"size 32 and intermediate size 48 .* must be Fast"):
        prove(dtype, 32, 48, device, kernel)


@pytest.mark.parametrize(
    ("kernel", "smallest", "largest"),
    [
        pytest.param(OtherLoopBelow16Rows, 16, 256, id="small tiles are another class"),
        pytest.param(OtherLoopAbove32Rows, 4, 32, id="large tiles are another class"),
    ],
)
def test_only_tiles_of_one_class_are_used(
    kernel: type[ExpertKernel], smallest: int, largest: int
) -> None:
    tiles = prove(torch.bfloat16, 32, 48, kernel_type=kernel).tiles
    assert tiles[0] >= smallest
    assert tiles[-1] <= largest
    assert 32 in tiles


@pytest.mark.parametrize(
    ("classes", "chosen"),
    [
        pytest.param([], (), id="none"),
        pytest.param([(), (), ()], (), id="none holds"),
        pytest.param([(4, 8, 16, 32)], (4, 8, 16, 32), id="the first is good"),
        pytest.param([(4,), (8,), (16, 64)], (16, 64), id="small ones do not grow"),
        pytest.param([(), (8, 16), (16,), (32, 64)], (32, 64), id="a base that fails is skipped"),
        pytest.param([(4, 16), (8,), (16,)], (4, 16), id="none is good: the largest"),
        pytest.param([(4, 16), (8, 16)], (4, 16), id="equally large: the first"),
    ],
)
def test_choose(classes: list[tuple[int, ...]], chosen: tuple[int, ...]) -> None:
    assert choose(classes) == chosen


def test_no_more_classes_are_proven_than_needed() -> None:
    classes = iter([(4, 32), (8, 256)])
    assert choose(classes) == (4, 32)
    assert next(classes) == (8, 256)


@pytest.mark.parametrize("device", DEVICES, ids=str)
def test_proving_twice_finds_the_same_rule_and_fingerprint(device: torch.device) -> None:
    first, second = (prove(torch.bfloat16, 64, 96, device) for _ in range(2))
    assert first == second
    assert first.exact
    assert "threads=1" in first.fingerprint


def test_the_number_of_threads_does_not_matter() -> None:
    alone = prove(torch.float32, 64, 96)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert prove(torch.float32, 64, 96) == alone
    finally:
        torch.set_num_threads(before)


def test_fingerprints_tell_shapes_dtypes_and_numerics_apart() -> None:
    rules = [
        prove(torch.float32, 32, 48),
        prove(torch.float32, 48, 32),
        prove(torch.bfloat16, 32, 48),
        *(fast(device) for device in DEVICES),
    ]
    assert len({rule.fingerprint for rule in rules}) == len(rules)
    assert not rules[-1].exact
