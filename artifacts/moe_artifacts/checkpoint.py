"""Opens a Hugging Face checkpoint and finds experts and gates in it.

Of families whose experts are Mixtral's, in every layer: Mixtral, OLMoE, Qwen2-MoE, Qwen3-MoE.

Files are mapped, never loaded: what is given out are views. Pickle is never read. Nothing is
written here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from moe_artifacts.container import Container, open_container
from moe_artifacts.encoding import Array
from moe_artifacts.errors import BadCheckpoint
from moe_artifacts.families import policy_of
from moe_artifacts.names import (
    PROJECTIONS,
    Slice,
    fused,
    gates,
    is_trunk,
    layer_of,
    parse_published,
    published,
)
from moe_artifacts.trunk import Tensor
from moe_core.document import InvalidDocument, Reader
from moe_core.policy import Policy

_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\.safetensors")
_SIZES = {
    "mixtral": ("num_local_experts", "intermediate_size"),
    "olmoe": ("num_experts", "intermediate_size"),
    "qwen2_moe": ("num_experts", "moe_intermediate_size"),
    "qwen3_moe": ("num_experts", "moe_intermediate_size"),
}
"""By family, what config.json calls the number of experts, and how wide one is."""
_DENSE_LAYERS = "mlp_only_layers"
_MAX_JSON_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Architecture:
    """What config.json says that matters for experts and gates."""

    hidden_size: int
    intermediate_size: int
    layers: int
    experts: int
    policy: Policy

    @classmethod
    def read(cls, reader: Reader) -> Self:
        """Raises BadCheckpoint for another family, InvalidDocument for a bad field."""
        family, activation = reader.text("model_type"), reader.text("hidden_act", default="silu")
        policy = policy_of(reader) if family in _SIZES else None
        if policy is None:
            right = f"one of {', '.join(_SIZES)}"
            raise BadCheckpoint(f"{reader.path}.model_type is {family!r}; it must be {right}")
        if activation != "silu":
            raise BadCheckpoint(f"{reader.path}.hidden_act is {activation!r}; it must be 'silu'")
        count, wide = _SIZES[family]
        if count not in reader.value and "num_local_experts" in reader.value:
            count = "num_local_experts"  # what transformers writes for Qwen3-MoE
        experts = reader.integer(count, low=1, high=1024)
        reader.integer("num_experts_per_tok", low=1, high=experts)
        if reader.integer("decoder_sparse_step", default=1) != 1 or reader.integers(_DENSE_LAYERS):
            what = f"{reader.path}.decoder_sparse_step and {_DENSE_LAYERS} make some layers dense"
            raise BadCheckpoint(f"{what}; every layer must have experts")
        return cls(
            hidden_size=reader.integer("hidden_size", low=1, high=1 << 16),
            intermediate_size=reader.integer(wide, low=1, high=1 << 20),
            layers=reader.integer("num_hidden_layers", low=1, high=1024),
            experts=experts,
            policy=policy,
        )

    @property
    def top_k(self) -> int:
        return self.policy.top_k


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """An open checkpoint: for each tensor the file that holds it."""

    directory: Path
    architecture: Architecture
    files: Mapping[str, Container]

    def expert(self, expert: int) -> Mapping[Slice, Array]:
        """Return an expert's slices, views in their stored dtype. Raises BadCheckpoint."""
        layers = range(self.architecture.layers)
        parts = (Slice(expert, layer, name) for layer in layers for name in PROJECTIONS)
        return {part: self._slice(part) for part in parts}

    def gate(self, layer: int) -> Array:
        """Return a layer's gate (E, H). Raises BadCheckpoint."""
        name = self._first(*gates(layer))
        return self._shaped(name, (self.architecture.experts, self.architecture.hidden_size))

    def trunk(self) -> Iterator[Tensor]:
        """Give all that is neither expert nor gate, for trunk_sha256."""
        for name, file in self.files.items():
            if is_trunk(name):
                entry = file.header.entries[name]
                yield name, file.raw(name), entry.shape, entry.code

    def _slice(self, part: Slice) -> Array:
        wide = self.architecture.intermediate_size
        name = self._first(*published(part), fused(part))
        shape = (wide, self.architecture.hidden_size)
        down = part.projection == "down_proj"
        if name in published(part):
            return self._shaped(name, shape[::-1] if down else shape)
        rows = shape[::-1] if down else (2 * wide, shape[1])
        held: Array = self._shaped(name, (self.architecture.experts, *rows))[part.expert]
        if down:
            return held
        return held[:wide] if part.projection == "gate_proj" else held[wide:]

    def _first(self, *names: str) -> str:
        for name in names:
            if name in self.files:
                return name
        either = " nor ".join(names)
        raise BadCheckpoint(f"{self.directory} has no tensor {either}; config.json speaks of it")

    def _shaped(self, name: str, shape: tuple[int, ...]) -> Array:
        array = self.files[name].array(name)
        if array.shape != shape:
            seen, right = list(array.shape), list(shape)
            raise BadCheckpoint(f"{name} has shape {seen}; by config.json it is {right}")
        return array


def open_checkpoint(directory: Path) -> Checkpoint:
    """Open config.json and the safetensors files beside it, sharded or not.

    Raises BadCheckpoint, or BadArtifact for a file that is no safetensors file.
    """
    try:
        config = Reader(read_json(directory / "config.json"), "config.json")
        architecture = Architecture.read(config)
    except InvalidDocument as error:
        raise BadCheckpoint(f"{directory}: {error}") from None
    checkpoint = Checkpoint(directory, architecture, _open_files(directory))
    _check_names(checkpoint)
    return checkpoint


def read_json(path: Path) -> Any:
    """Read a JSON file of bounded size. Raises BadCheckpoint."""
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_JSON_BYTES + 1)
        if len(content) > _MAX_JSON_BYTES:
            raise BadCheckpoint(f"{path} is larger than {_MAX_JSON_BYTES} bytes")
        return json.loads(content)
    except OSError as error:
        raise BadCheckpoint(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise BadCheckpoint(f"{path} is not JSON ({error})") from None


def _open_files(directory: Path) -> Mapping[str, Container]:
    single, index = directory / "model.safetensors", directory / "model.safetensors.index.json"
    if single.exists():
        file = open_container(single)
        return dict.fromkeys(file.header.entries, file)
    if not index.exists():
        raise BadCheckpoint(
            f"{directory} has neither {single.name} nor {index.name}; only safetensors are read"
        )
    fields = read_json(index)
    weights = fields.get("weight_map") if isinstance(fields, dict) else None
    if not isinstance(weights, dict) or not all(isinstance(v, str) for v in weights.values()):
        raise BadCheckpoint(f"{index}: weight_map must be an object from tensor to file")
    return _open_shards(directory, weights)


def _open_shards(directory: Path, weights: Mapping[str, str]) -> Mapping[str, Container]:
    shards = {}
    for name in sorted(set(weights.values())):
        if not _FILE.fullmatch(name):
            raise BadCheckpoint(f"weight_map names {name!r:.80}; it must be a file beside it")
        shards[name] = open_container(directory / name)
    for tensor, name in weights.items():
        if tensor not in shards[name].header.entries:
            raise BadCheckpoint(f"weight_map says that {tensor} is in {name}; it is not there")
    return {tensor: shards[name] for tensor, name in weights.items()}


def _check_names(checkpoint: Checkpoint) -> None:
    """Refuse experts and layers that config.json does not know of: they would be lost."""
    architecture = checkpoint.architecture
    for name in checkpoint.files:
        layer, part = layer_of(name), parse_published(name)
        if layer is not None and layer >= architecture.layers:
            raise BadCheckpoint(
                f"{name}: num_hidden_layers in config.json is {architecture.layers}"
            )
        if part is not None and part.expert >= architecture.experts:
            count = architecture.experts
            raise BadCheckpoint(f"{name}: the number of experts in config.json is {count}")
