"""Loads the stored example model, and says how well a model predicts bytes.

The checkpoint has the published Mixtral layout: one tensor per layer, expert and projection. Files
in `versions/` hold the same tensors for one expert. Nothing here trains or chooses anything.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor
from torch.nn import functional
from transformers import MixtralConfig, MixtralForCausalLM

from examples.tiny.domains import EXPERTS, HERE, check_domain

CHECKPOINT = HERE / "checkpoint"
VERSIONS = HERE / "versions"
CONTEXT = 256
"""Bytes that the model was trained to look back on; text is measured in pieces of this many."""

CONFIG = {
    "vocab_size": 256,
    "hidden_size": 96,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 24,
    "max_position_embeddings": 1024,
    "num_local_experts": EXPERTS,
    "num_experts_per_tok": 2,
    "router_aux_loss_coef": 0.01,
    "initializer_range": 0.05,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
    "tie_word_embeddings": False,
}


def config() -> MixtralConfig:
    """Return the model's shape."""
    values: dict[str, Any] = dict(CONFIG)
    return MixtralConfig(**values)


def create(seed: int) -> MixtralForCausalLM:
    """Return an untrained model in float32, the same for the same `seed`."""
    torch.manual_seed(seed)
    return MixtralForCausalLM(config())


def load(dtype: torch.dtype, path: Path = CHECKPOINT) -> MixtralForCausalLM:
    """Return the stored model, its bfloat16 weights widened or kept as `dtype`, in eval mode.

    Raises OSError where `path` holds no checkpoint.
    """
    model: MixtralForCausalLM = MixtralForCausalLM.from_pretrained(
        path, dtype=dtype, local_files_only=True
    )
    model.train(False)
    return model


def heldout(domain: str) -> bytes:
    """Return the stored text of `domain` that training never saw; ValueError if unknown."""
    return (HERE / "heldout" / f"{check_domain(domain)}.txt").read_bytes()


@torch.inference_mode()
def bits_per_byte(model: MixtralForCausalLM, data: bytes, batch: int = 16) -> float:
    """Return the mean of -log2 p(next byte) over every byte of `data` but the first.

    The text is read in pieces of CONTEXT bytes, each from an empty cache, `batch` pieces at once.
    Raises ValueError for less than two bytes.
    """
    if len(data) < 2:
        raise ValueError(f"data has {len(data)} bytes; at least 2 are needed to predict one")
    tokens = torch.frombuffer(bytearray(data), dtype=torch.uint8).long()
    whole = (len(tokens) - 1) // CONTEXT * CONTEXT
    inputs = list(torch.split(tokens[:whole].view(-1, CONTEXT), batch)) if whole else []
    targets = list(torch.split(tokens[1 : whole + 1].view(-1, CONTEXT), batch)) if whole else []
    if whole < len(tokens) - 1:
        inputs.append(tokens[None, whole:-1])
        targets.append(tokens[None, whole + 1 :])
    total = 0.0
    for given, wanted in zip(inputs, targets, strict=True):
        logits = model(input_ids=given, use_cache=False).logits.float()
        loss = functional.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="sum")
        total += loss.item()
    return total / math.log(2) / (len(tokens) - 1)


def expert_tensors(model: MixtralForCausalLM, expert: int) -> dict[str, Tensor]:
    """Return one expert's tensors in all layers by their published names, as copies."""
    named = {}
    for layer, block in enumerate(model.model.layers):
        prefix = f"model.layers.{layer}.block_sparse_moe.experts.{expert}"
        gate, up = block.mlp.experts.gate_up_proj[expert].detach().chunk(2)  # (I, H) each
        named[f"{prefix}.w1.weight"] = gate.clone()
        named[f"{prefix}.w2.weight"] = block.mlp.experts.down_proj[expert].detach().clone()
        named[f"{prefix}.w3.weight"] = up.clone()
    return named


@torch.no_grad()
def replace_expert(model: MixtralForCausalLM, expert: int, named: Mapping[str, Tensor]) -> None:
    """Put `named`, one expert's tensors under any expert's names, in the place of `expert`.

    Raises ValueError unless there are w1, w2 and w3 for every layer of the model.
    """
    wanted = 3 * len(model.model.layers)
    if len(named) != wanted:
        raise ValueError(f"{len(named)} tensors given; one expert of this model has {wanted}")
    half = model.config.intermediate_size
    for name, tensor in named.items():
        parts = name.split(".")
        experts = model.model.layers[int(parts[2])].mlp.experts
        projection = parts[-2]
        if projection == "w2":
            experts.down_proj[expert].copy_(tensor)
        else:
            start = 0 if projection == "w1" else half
            experts.gate_up_proj[expert, start : start + half].copy_(tensor)


def save_version(path: Path, named: Mapping[str, Tensor]) -> None:
    """Write one expert's tensors as bfloat16."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in named.items()}
    path.write_bytes(save(stored, metadata={"format": "pt"}))


def load_version(name: str) -> dict[str, Tensor]:
    """Return the tensors of `versions/<name>.safetensors`."""
    return load_file(VERSIONS / f"{name}.safetensors")


def save_checkpoint(model: MixtralForCausalLM, path: Path = CHECKPOINT) -> None:
    """Write config.json and model.safetensors (bfloat16) in the published Mixtral layout."""
    path.mkdir(parents=True, exist_ok=True)
    named = {}
    for name, tensor in model.state_dict().items():
        if ".mlp.experts." not in name:
            named[name.replace(".mlp.gate.", ".block_sparse_moe.gate.")] = tensor
    for expert in range(model.config.num_local_experts):
        named |= expert_tensors(model, expert)
    save_version(path / "model.safetensors", named)
    described = json.loads(config().to_json_string())
    described |= {"architectures": ["MixtralForCausalLM"], "dtype": "bfloat16"}
    (path / "config.json").write_text(json.dumps(described, indent=2, sort_keys=True) + "\n")
