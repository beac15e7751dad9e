"""Checkpoints of other families than Mixtral: split, known again by a client, and served."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from moe_artifacts.artifact import read_expert, read_gate
from moe_artifacts.plan import Request, make_plan
from moe_artifacts.split import split
from moe_client import attach, load_trunk, use_local
from moe_client.site import find_sites
from moe_client.tensors import to_numpy
from tests.client.test_attachment import logits, some_tokens
from tests.client.test_families import FAMILIES
from tests.client.tiny import Served, computed_by, describe
from tests.fakes.router import FakeRouter, in_a_thread

STYLES: dict[str, dict[str, Any]] = {"published": {}, "fused": {"save_original_format": False}}


def save(family: str, directory: Path, **style: Any) -> Any:
    """Write a random model with experts in every layer; return it as loaded again."""
    torch.manual_seed(0)
    config = copy.deepcopy(FAMILIES[family])
    auto: Any = AutoModelForCausalLM
    if family == "Qwen3-MoE":
        config.mlp_only_layers = []
    made: Any = auto.from_config(config)
    made.save_pretrained(directory, **style)
    model: Any = auto.from_pretrained(directory, dtype="auto")
    return model.eval()


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("family", FAMILIES)
def test_artifacts_hold_the_experts_and_gates_of_the_model(
    family: str, style: str, tmp_path: Path
) -> None:
    model = save(family, tmp_path / "in", **STYLES[style])
    index = split(make_plan(Request(tmp_path / "in", tmp_path / "out", "tiny")), lambda _: None)

    for entry in index.index.entries:
        assert entry.file is not None
        path = tmp_path / "out" / entry.file
        for site in find_sites(model):
            experts: Any = site.experts
            if entry.role is None:
                held = read_gate(path, entry.sha256).layers[site.layer].weight
                assert (held == to_numpy(site.learned["weight"])).all()
                continue
            number = int(entry.name.removeprefix("e"))
            expert = read_expert(path, entry.sha256).layers[site.layer]
            gate, up = experts.gate_up_proj[number].chunk(2)
            assert (expert.gate_proj == to_numpy(gate)).all()
            assert (expert.up_proj == to_numpy(up)).all()
            assert (expert.down_proj == to_numpy(experts.down_proj[number])).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_client_knows_trunk_and_gate_again_and_gets_the_same_bits(
    family: str, tmp_path: Path
) -> None:
    model = save(family, tmp_path)
    router = FakeRouter(describe(tmp_path), otherwise=computed_by(Served.of(model)))
    use_local(model)
    reference = logits(model, some_tokens())
    trunk = load_trunk(tmp_path)
    with in_a_thread(router), attach(trunk, router.address):
        assert torch.equal(logits(trunk, some_tokens()), reference)
