"""Tiny random models of Mixtral's architecture, their checkpoints, and how to put one together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor as Torch
from transformers import MixtralConfig, MixtralForCausalLM

from moe_artifacts.artifact import read_expert, read_gate
from moe_artifacts.encoding import Array
from moe_artifacts.index import Index, load
from moe_artifacts.names import is_trunk
from moe_artifacts.trunk import Tensor, trunk_sha256

torch.set_num_threads(1)

EXPERTS, LAYERS, HIDDEN, WIDE = 4, 2, 16, 24


def make_model(dtype: torch.dtype = torch.bfloat16, *, tied: bool = False) -> MixtralForCausalLM:
    torch.manual_seed(7)
    config = MixtralConfig(
        vocab_size=32,
        hidden_size=HIDDEN,
        intermediate_size=WIDE,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        num_key_value_heads=1,
        num_local_experts=EXPERTS,
        num_experts_per_tok=2,
        max_position_embeddings=64,
        initializer_range=0.3,
        tie_word_embeddings=tied,
    )
    model = MixtralForCausalLM(config)
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    return model


def load_model(path: Path, dtype: torch.dtype) -> MixtralForCausalLM:
    return MixtralForCausalLM.from_pretrained(path, dtype=dtype, local_files_only=True)


def slices_of(model: MixtralForCausalLM, expert: int, named: int | None = None) -> dict[str, Torch]:
    """Copies of one expert's tensors by their published names, as expert `named` if given."""
    tensors = {}
    for layer, block in enumerate(model.model.layers):
        number = expert if named is None else named
        prefix = f"model.layers.{layer}.block_sparse_moe.experts.{number}"
        gate, up = block.mlp.experts.gate_up_proj[expert].detach().chunk(2)
        tensors[f"{prefix}.w1.weight"] = gate.clone()
        tensors[f"{prefix}.w2.weight"] = block.mlp.experts.down_proj[expert].detach().clone()
        tensors[f"{prefix}.w3.weight"] = up.clone()
    return tensors


def save_expert(path: Path, tensors: dict[str, Torch]) -> Path:
    save_file(tensors, path, metadata={"format": "pt"})
    return path


def to_torch(array: Array) -> Torch:
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view("uint16")).view(torch.bfloat16)
    return torch.from_numpy(array)


def index_of(out: Path) -> Index:
    index = load(out)
    assert index is not None
    return index


@torch.no_grad()
def assemble(out: Path, model: MixtralForCausalLM) -> MixtralForCausalLM:
    """Put the artifacts of `out` into `model`, whose own experts and gates are made NaN first."""
    for block in model.model.layers:
        for parameter in (block.mlp.gate.weight, *block.mlp.experts.parameters()):
            parameter.fill_(float("nan"))
    for entry in index_of(out).entries:
        assert entry.file is not None
        if entry.role is None:
            for layer, gate in read_gate(out / entry.file, entry.sha256).layers.items():
                model.model.layers[layer].mlp.gate.weight.copy_(to_torch(gate.weight))
            continue
        number = int(entry.name.removeprefix("e"))
        for layer, expert in read_expert(out / entry.file, entry.sha256).layers.items():
            experts = model.model.layers[layer].mlp.experts
            both = torch.cat([to_torch(expert.gate_proj), to_torch(expert.up_proj)])
            experts.gate_up_proj[number].copy_(both)
            experts.down_proj[number].copy_(to_torch(expert.down_proj))
    return model


@torch.inference_mode()
def logits(model: MixtralForCausalLM) -> Torch:
    tokens = torch.arange(24).reshape(2, 12)
    answer: Torch = model(input_ids=tokens, use_cache=False).logits
    return answer


def trunk_of(model: MixtralForCausalLM) -> str:
    """The digest as a client computes it from a loaded model."""

    def tensors() -> Iterator[Tensor]:
        for name, tensor in model.state_dict().items():
            if is_trunk(name):
                raw = tensor.detach().cpu().contiguous().view(torch.uint8).numpy()
                yield name, raw, tensor.shape, str(tensor.dtype)

    return trunk_sha256(tensors())
