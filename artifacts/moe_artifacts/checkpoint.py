"""Opens a Hugging Face checkpoint and finds experts and gates in it.

Of the families that `moe_artifacts.architecture` knows. Layers are those that have experts, counted
from 0; in a file's names they have the decoder's numbers, and this module stands between the two.

Files are mapped, never loaded: what is given out are views. Pickle is never read. Nothing is
written here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moe_artifacts.architecture import Architecture
from moe_artifacts.container import Container, open_container
from moe_artifacts.encoding import Array
from moe_artifacts.errors import BadCheckpoint
from moe_artifacts.names import (
    GATE_TENSORS,
    PROJECTIONS,
    Slice,
    decoder_layer_of,
    fused,
    gates,
    is_trunk,
    layer_of,
    parse_published,
    published,
)
from moe_artifacts.trunk import Tensor
from moe_core.document import InvalidDocument, Reader

_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\.safetensors")
_MAX_JSON_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """An open checkpoint: for each tensor the file that holds it."""

    directory: Path
    architecture: Architecture
    files: Mapping[str, Container]

    def expert(self, expert: int) -> Mapping[Slice, Array]:
        """Return an expert's slices, views in their stored dtype. Raises BadCheckpoint."""
        layers = self.architecture.moe_layers
        parts = (Slice(expert, layer, name) for layer in layers for name in PROJECTIONS)
        return self.counted({part: self._slice(part) for part in parts}, f"e{expert}")

    def counted(self, slices: Mapping[Slice, Array], name: str) -> Mapping[Slice, Array]:
        """Return an expert's slices that have the decoder's numbers of layers with those from 0.

        Raises BadCheckpoint where one is of a layer without experts.
        """
        known = self.architecture.moe_layers
        seen = sorted({*known, *(part.layer for part in slices)})
        if len(seen) > len(known):
            raise BadCheckpoint(f"expert {name} has layers {seen}; the model has {list(known)}")
        return {part._replace(layer=known.index(part.layer)): a for part, a in slices.items()}

    def gate(self, layer: int) -> Array:
        """Return the weight of a layer's gate (E, H). Raises BadCheckpoint."""
        return self.learned(layer)["weight"]

    def learned(self, layer: int) -> Mapping[str, Array]:
        """Return what a layer's gate has learned, by the names that an artifact has for it.

        Its weight is always there. Raises BadCheckpoint.
        """
        experts = self.architecture.experts
        found = {}
        for part in GATE_TENSORS:
            names = gates(self.architecture.moe_layers[layer], part)
            if part == "weight" or any(name in self.files for name in names):
                shape = (experts, self.architecture.hidden_size) if part == "weight" else (experts,)
                found[part] = self._shaped(self._first(*names), shape)
        return found

    def trunk(self) -> Iterator[Tensor]:
        """Give all that is neither expert nor gate, for trunk_sha256."""
        for name, file in self.files.items():
            layer = decoder_layer_of(name)
            if is_trunk(name) and (layer is None or not self.architecture.unused(layer)):
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
        if layer is not None and architecture.unused(layer):
            continue
        if layer is not None and layer >= architecture.decoder_layers:
            raise BadCheckpoint(
                f"{name}: num_hidden_layers in config.json is {architecture.decoder_layers}"
            )
        if layer is not None and layer not in architecture.moe_layers:
            raise BadCheckpoint(f"{name}: by config.json layer {layer} has no experts")
        if part is not None and part.expert >= architecture.experts:
            count = architecture.experts
            raise BadCheckpoint(f"{name}: the number of experts in config.json is {count}")
