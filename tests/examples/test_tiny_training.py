"""How the example model is trained: the guide, outages, and that tuning moves one expert only."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import MixtralForCausalLM

from examples.tiny import outage
from examples.tiny.corpus import training_text
from examples.tiny.domains import EXPERTS
from examples.tiny.model import CONTEXT, create, expert_tensors, heldout
from examples.tiny.train import GUIDED, Outages, guide_loss, rate
from examples.tiny.tuning import append_expert, tune
from examples.tiny.versions import next_byte_loss, shuffled


def gate_output(seed: int, rows: int = 6) -> outage.GateOutput:
    logits = torch.randn(rows, EXPERTS, generator=torch.Generator().manual_seed(seed))
    weights, chosen = logits.softmax(-1).topk(2)
    return logits, weights / weights.sum(-1, keepdim=True), chosen


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1000), st.integers(0, EXPERTS - 1))
def test_renormalising_keeps_each_rows_sum_and_gives_the_lost_nothing(seed: int, e: int) -> None:
    out = gate_output(seed)
    lost = out[2] == e
    _, weights, chosen = outage.renormalised(out, lost)
    assert torch.allclose(weights.sum(-1), out[1].sum(-1), atol=1e-6)
    assert bool((weights[lost] == 0).all())
    assert torch.equal(chosen, out[2])


def test_a_row_that_lost_all_experts_keeps_only_the_residual() -> None:
    out = gate_output(0)
    _, weights, _ = outage.renormalised(out, torch.ones_like(out[2], dtype=torch.bool))
    assert bool((weights == 0).all())


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1000), st.integers(0, EXPERTS - 1), st.integers(0, EXPERTS - 1))
def test_a_backup_answers_exactly_the_lost_pairs(seed: int, e: int, backup: int) -> None:
    out = gate_output(seed)
    lost = out[2] == e
    _, weights, chosen = outage.to_backup(out, lost, torch.tensor(backup))
    assert bool((chosen[lost] == backup).all())
    assert torch.equal(chosen[~lost], out[2][~lost])
    assert torch.equal(weights, out[1])


def test_outages_of_all_sequences_take_the_expert_from_every_row() -> None:
    rows = 3 * CONTEXT
    outages = Outages(1.0, 0.0, seed=0)
    outages.draw(torch.full((rows,), 1), torch.full((rows,), 7))
    out = gate_output(3, rows)
    _, weights, chosen = outages(torch.nn.Identity(), (), out)
    assert torch.equal(weights, out[1])
    assert not bool((chosen == 1).any())
    assert bool((chosen == 7).any())


def test_the_guide_pulls_only_while_the_expert_has_too_little() -> None:
    logits = torch.zeros(4, EXPERTS, requires_grad=True)
    experts = torch.tensor([0, 1, 2, 3])
    assert guide_loss((logits,), experts).item() == pytest.approx(math.log(GUIDED * EXPERTS))
    content = torch.nn.functional.one_hot(experts, EXPERTS).float() * 10
    assert guide_loss((content,), experts).item() == 0.0


def test_the_rate_rises_and_then_only_falls() -> None:
    rates = [rate(step, 300, 1.0) for step in range(300)]
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert rates[-1] >= 0.05


def test_training_text_has_no_long_line_of_the_heldout_text() -> None:
    held = heldout("docs")
    lines = {line.strip() for line in held.decode().splitlines()}
    long_lines = {line for line in lines if len(line) > 24}
    trained = {line.strip() for line in training_text("docs", held).decode().splitlines()}
    assert len(long_lines) > 100
    assert not long_lines & trained


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 100))
def test_shuffling_keeps_each_rows_bytes(seed: int) -> None:
    rows = torch.arange(40).reshape(2, 20)
    mixed = shuffled(rows, torch.Generator().manual_seed(seed))
    assert torch.equal(mixed.sort(-1).values, rows)
    assert not torch.equal(mixed, rows)


def frozen(model: MixtralForCausalLM, without: int) -> dict[str, Tensor]:
    named = {}
    for name, tensor in model.state_dict().items():
        kept = [e for e in range(len(tensor)) if e != without]
        named[name] = (tensor[kept] if ".experts." in name else tensor).clone()
    return named


def test_tuning_moves_one_expert_and_nothing_else() -> None:
    torch.set_num_threads(1)
    model = create(seed=5)
    number = append_expert(model, like=2)
    assert number == EXPERTS
    start, before = expert_tensors(model, 2), frozen(model, without=2)
    rows = torch.frombuffer(bytearray(heldout("code")[: 2 * 33]), dtype=torch.uint8)

    def losses() -> Iterator[Tensor]:
        while True:
            yield next_byte_loss(model, rows.long().view(2, 33))

    seen = list(tune(model, 2, losses(), steps=3, peak=1e-2))
    assert len(seen) == 3
    after = frozen(model, without=2)
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    end = expert_tensors(model, 2)
    assert any(not torch.equal(tensor, end[name]) for name, tensor in start.items())
