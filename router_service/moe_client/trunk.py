"""Loads a model without its experts: all that a client of a mixture needs to have in memory.

Experts stay on the meta device, as shapes; nothing of them is read from disk, where they need
not be: the trunk's folder that `moe split` writes does as well as the whole checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

from moe_artifacts.checkpoint import Checkpoint, open_checkpoint
from moe_artifacts.encoding import NAMES
from moe_artifacts.errors import BadCheckpoint
from moe_artifacts.names import GATE_TENSORS, gates
from moe_client.alignment import align
from moe_client.site import find_sites
from moe_client.tensors import from_bytes
from moe_core.dtypes import by_name, by_numpy
from moe_core.kernel import torch_dtype

_EXACT = GATE_TENSORS["selection_bias"]
"""What transformers keeps in float32 whatever the model's dtype."""
_GENERATION = "generation_config.json"


def load_trunk(checkpoint: str | Path, *, dtype: torch.dtype | None = None) -> Any:
    """Return the model of a checkpoint in eval mode, its experts on the meta device.

    `checkpoint` is a whole one, or a folder with its trunk alone. `dtype` is that of the gates
    unless given. Raises BadCheckpoint where the directory holds no such checkpoint, or where it
    lacks a tensor of the trunk.
    """
    directory = Path(checkpoint)
    opened = open_checkpoint(directory)
    dtype = dtype or torch_dtype(by_numpy(opened.gate(0).dtype))
    config = AutoConfig.from_pretrained(directory, local_files_only=True)
    auto: Any = AutoModelForCausalLM
    with torch.device("meta"):
        model = auto.from_config(config, dtype=dtype)
    tensors = {
        name: tensor.to(torch.float32 if name.endswith(_EXACT) else dtype)
        for name, tensor in _read(opened)
    }
    model.load_state_dict(tensors, strict=False, assign=True)
    model.tie_weights()
    align(model)
    _check_complete(model, directory)
    _renew_buffers(model)
    if (directory / _GENERATION).exists():
        model.generation_config = GenerationConfig.from_pretrained(directory)
    return model.eval().requires_grad_(False)


def _read(checkpoint: Checkpoint) -> Iterator[tuple[str, torch.Tensor]]:
    """Give the trunk's tensors and the gates', by the names that transformers has for them."""
    for name, data, shape, code in checkpoint.trunk():
        yield name, from_bytes(data, torch_dtype(by_name(NAMES[code])), shape)
    for layer, number in enumerate(checkpoint.architecture.moe_layers):
        for part, array in checkpoint.learned(layer).items():
            stored = torch_dtype(by_numpy(array.dtype))
            yield gates(number, part)[1], from_bytes(array.tobytes(), stored, array.shape)


def _check_complete(model: Any, directory: Path) -> None:
    experts = tuple(f"{site.path}." for site in find_sites(model))
    for name, parameter in model.named_parameters():
        if parameter.is_meta and not name.startswith(experts):
            raise BadCheckpoint(f"{directory} has no tensor {name}; config.json speaks of it")


def _renew_buffers(model: Any) -> None:
    """Make anew the modules that compute their buffers from the configuration (rotary angles)."""
    for path, module in list(model.named_modules()):
        if any(buffer.is_meta for buffer in module.buffers(recurse=False)):
            parent, _, name = path.rpartition(".")
            setattr(model.get_submodule(parent), name, type(module)(module.config))
