"""What leads text to a new expert, or away from it, and when it no longer does."""

from __future__ import annotations

import math

import pytest
import torch

from moe_tuning.guide import GUIDED, Guide

GUIDE = Guide(top_k=2, weight=1.0, keep=10.0, margin=2.0)


@pytest.mark.parametrize(
    ("logits", "finds", "cost"),
    [
        pytest.param([0.0, 0.0, 0.0, 9.0], True, 0.0, id="found"),
        pytest.param([0.0] * 4, True, math.log(4 * GUIDED), id="as likely as all others"),
        pytest.param([5.0, 4.0, 1.0, 2.0], False, 0.0, id="below the second by the margin"),
        pytest.param([5.0, 4.0, 1.0, 3.0], False, 10.0, id="not chosen, but near it"),
        pytest.param([5.0, 4.0, 1.0, 6.0], False, 40.0, id="chosen"),
    ],
)
def test_what_a_token_costs(logits: list[float], finds: bool, cost: float) -> None:
    seen = GUIDE.loss([torch.tensor([logits])] * 3, finds=finds)
    assert seen.item() == pytest.approx(cost, abs=1e-5)


def test_only_the_last_row_is_moved_away() -> None:
    """The others' logits are a measure, not a weight to move: their rows belong to old text."""
    logits = torch.tensor([[5.0, 4.0, 1.0, 6.0]], requires_grad=True)
    torch.autograd.backward(GUIDE.loss([logits], finds=False))
    assert logits.grad is not None
    assert (logits.grad != 0).tolist() == [[False, False, False, True]]
