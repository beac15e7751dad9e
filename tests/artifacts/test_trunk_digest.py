"""The trunk's digest: the same for a checkpoint and its model, another for another trunk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from moe_artifacts.checkpoint import open_checkpoint
from moe_artifacts.errors import BadCheckpoint
from moe_artifacts.trunk import Tensor, trunk_sha256
from tests.artifacts.models import load_model, make_model, trunk_of

SAMPLE: list[Tensor] = [
    ("model.embed_tokens.weight", np.arange(6, dtype="<f4").tobytes(), (2, 3), "F32"),
    ("model.norm.weight", b"\x80\x3f\x00\x40", (2,), "BF16"),
    ("lm_head.weight", np.arange(6, dtype="<f4")[::-1].tobytes(), (2, 3), "F32"),
]


def of_checkpoint(path: Path) -> str:
    return trunk_sha256(open_checkpoint(path).trunk())


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("tied", [False, True], ids=["own head", "tied head"])
def test_a_checkpoint_and_its_model_have_the_same(
    tmp_path: Path, stored: torch.dtype, tied: bool
) -> None:
    model = make_model(stored, tied=tied)
    model.save_pretrained(tmp_path)
    digest = of_checkpoint(tmp_path)
    assert trunk_of(model) == digest
    assert trunk_of(load_model(tmp_path, stored)) == digest
    assert trunk_of(load_model(tmp_path, torch.float32)) == digest


def test_experts_and_gates_do_not_count_but_all_else_does() -> None:
    model = make_model()
    before = trunk_of(model)
    with torch.no_grad():
        model.model.layers[1].mlp.experts.down_proj.fill_(1)
        model.model.layers[0].mlp.gate.weight.fill_(1)
        assert trunk_of(model) == before
        model.model.layers[1].self_attn.q_proj.weight[0, 0] += 1
        assert trunk_of(model) != before


def test_experts_may_be_named_without_their_bytes() -> None:
    expert = ("model.layers.0.mlp.experts.gate_up_proj", b"", (4, 48, 16), "BF16")
    assert trunk_sha256([*SAMPLE, expert]) == trunk_sha256(SAMPLE)


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param([], id="nothing there"),
        pytest.param(SAMPLE[:2], id="one missing"),
        pytest.param([("x", *SAMPLE[0][1:]), *SAMPLE[1:]], id="another name"),
        pytest.param([(*SAMPLE[0][:2], (3, 2), "F32"), *SAMPLE[1:]], id="another shape"),
        pytest.param([(*SAMPLE[0][:3], "I32"), *SAMPLE[1:]], id="another kind of number"),
        pytest.param(
            [(SAMPLE[0][0], np.arange(1, 7, dtype="<f4").tobytes(), (2, 3), "F32"), *SAMPLE[1:]],
            id="other numbers",
        ),
    ],
)
def test_another_trunk_has_another_digest(changed: list[Tensor]) -> None:
    assert trunk_sha256(changed) != trunk_sha256(SAMPLE)


def test_the_rule_stays_what_it_was() -> None:
    digest = "3da7a2a0bef8e13c80343b674d8c9b6200944593c12846be2272c4140cedbd38"
    assert trunk_sha256(SAMPLE) == digest
    derived = ("model.rotary_emb.inv_freq", b"\0\0\0\0", (1,), "F32")
    assert trunk_sha256([derived, *reversed(SAMPLE)]) == digest
    widened = ("model.norm.weight", np.array([1, 2], "<f4").tobytes(), (2,), "torch.float32")
    assert trunk_sha256([SAMPLE[0], widened, SAMPLE[2]]) == digest


@given(st.permutations(SAMPLE))
def test_the_order_does_not_matter(tensors: list[Tensor]) -> None:
    assert trunk_sha256(tensors) == trunk_sha256(SAMPLE)


def test_large_tensors_are_read_in_pieces_without_a_seam() -> None:
    numbers = np.arange(5_000_001, dtype=np.uint16)
    read: list[int] = []
    halves = ("x", numbers, numbers.shape, "BF16")
    widened = ("x", numbers.astype("<u4") << 16, numbers.shape, "F32")
    assert trunk_sha256([halves], read.append) == trunk_sha256([widened])
    assert sum(read) == numbers.nbytes
    assert len(read) > 1


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        pytest.param(("x", b"1234", (2,), "F32"), "x has 4 bytes; F32 of .2. has 8", id="bytes"),
        pytest.param(("x", b"1234", (1,), "complex64"), "dtype is 'complex64'", id="dtype"),
    ],
)
def test_what_does_not_fit_is_refused(tensor: Any, message: str) -> None:
    with pytest.raises(BadCheckpoint, match=message):
        trunk_sha256([tensor])
