"""Checkpoints of other families than Mixtral: split, known again by a client, and served."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from moe_artifacts.artifact import read_expert, read_gate
from moe_artifacts.errors import BadCheckpoint
from moe_artifacts.plan import Request, make_plan
from moe_artifacts.split import split
from moe_client import attach, load_trunk, use_local
from moe_client.site import find_sites
from moe_client.tensors import to_numpy
from tests.client.test_attachment import logits, some_tokens
from tests.client.test_families import FAMILIES, create
from tests.client.tiny import Served, computed_by, describe
from tests.fakes.router import FakeRouter, in_a_thread

STYLES: dict[str, dict[str, Any]] = {"published": {}, "fused": {"save_original_format": False}}


def save(family: str, directory: Path, dtype: torch.dtype = torch.float32, **style: Any) -> Any:
    """Write a random model; return it as loaded again."""
    create(family).to(dtype).save_pretrained(directory, **style)
    auto: Any = AutoModelForCausalLM
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
                held = read_gate(path, entry.sha256).layers[site.layer]
                for name, tensor in site.learned.items():
                    assert (getattr(held, name) == to_numpy(tensor)).all()
                continue
            number = int(entry.name.removeprefix("e"))
            expert = read_expert(path, entry.sha256).layers[site.layer]
            gate, up = experts.gate_up_proj[number].chunk(2)
            assert (expert.gate_proj == to_numpy(gate)).all()
            assert (expert.up_proj == to_numpy(up)).all()
            assert (expert.down_proj == to_numpy(experts.down_proj[number])).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_client_knows_trunk_and_gate_again_and_gets_the_same_bits(
    family: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    model = save(family, tmp_path / "in", dtype)
    split(make_plan(Request(tmp_path / "in", tmp_path / "out", "tiny")), lambda _: None)
    router = FakeRouter(describe(tmp_path / "in"), otherwise=computed_by(Served.of(model)))
    use_local(model)
    reference = logits(model, some_tokens())
    for directory in (tmp_path / "in", tmp_path / "out" / "trunk"):
        trunk = load_trunk(directory)
        with in_a_thread(router), attach(trunk, router.address):
            assert torch.equal(logits(trunk, some_tokens()), reference)


def test_layers_that_predict_further_tokens_are_no_part_of_the_model(tmp_path: Path) -> None:
    save("DeepSeek-V3", tmp_path)
    before = describe(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    behind = {n.replace(".2.", ".3."): t.clone() for n, t in tensors.items() if ".layers.2." in n}
    save_file(tensors | behind, path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["num_nextn_predict_layers"] = 1
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert describe(tmp_path) == before
    config["num_nextn_predict_layers"] = 0
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(BadCheckpoint, match=r"num_hidden_layers in config.json is 3"):
        describe(tmp_path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        pytest.param({"quantization_config": {"quant_method": "fp8"}}, "convert", id="quantised"),
        pytest.param({"moe_layer_freq": 2}, "moe_layer_freq is 2; it must be 1", id="every other"),
        pytest.param({"first_k_dense_replace": 3}, "no layer has experts", id="all dense"),
        pytest.param({"first_k_dense_replace": 2}, "layer 1 has no experts", id="one more dense"),
        pytest.param({"first_k_dense_replace": 0}, "has no tensor", id="one less"),
    ],
)
def test_a_configuration_that_is_not_the_checkpoints_is_refused(
    changed: dict[str, Any], message: str, tmp_path: Path
) -> None:
    save("DeepSeek-V3", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | changed
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(BadCheckpoint, match=message):
        make_plan(Request(tmp_path, tmp_path / "out", "tiny"))
