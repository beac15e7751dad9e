"""The parts that a model is cut into: what each artifact holds, and where its numbers are.

Experts from a checkpoint, from a small file with the same names for one expert, or a dense
stand-in; and the gate. Numbers are views; they are converted one tensor at a time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from moe_artifacts.artifact import Lookup
from moe_artifacts.checkpoint import Checkpoint
from moe_artifacts.container import open_container
from moe_artifacts.encoding import NUMPY_DTYPES, Array, convert
from moe_artifacts.errors import BadCheckpoint
from moe_artifacts.metadata import WEIGHT, ExpertMetadata, GateMetadata, Metadata
from moe_artifacts.names import PROJECTIONS, Slice, parse_published
from moe_core.policy import Policy
from moe_core.rows import Role

GATE = "gate"
NUMPY_NAMES = {"bfloat16": "BFloat16", "float16": "Float16", "float32": "Float32"}
"""The project's name of a dtype by numpy's."""


@dataclass(frozen=True, slots=True)
class Part:
    """What becomes one artifact. `role` is None for a gate."""

    name: str
    role: Role | None
    metadata: Metadata
    lookup: Lookup

    @property
    def size(self) -> int:
        """Bytes of its tensors."""
        return sum(
            NUMPY_DTYPES[self.metadata.dtype_of(name)].itemsize * math.prod(shape)
            for name, shape in self.metadata.shapes.items()
        )


def make_expert(
    name: str, role: Role, slices: Mapping[Slice, Array], dtype: str | None = None
) -> Part:
    """Make the part of one expert, in `dtype` or as stored. Raises BadCheckpoint, BadArtifact."""
    arrays = {f"layers.{s.layer}.{s.projection}": array for s, array in slices.items()}
    layers = tuple(sorted({s.layer for s in slices}))
    first = arrays.get(f"layers.{layers[0]}.gate_proj")
    if first is None or first.ndim != 2:
        w1 = PROJECTIONS["gate_proj"]
        raise BadCheckpoint(f"expert {name}: layer {layers[0]} has no {w1} with two dimensions")
    wide, hidden = first.shape
    metadata = ExpertMetadata(layers, hidden, wide, dtype or _common_dtype(name, arrays))
    _check_complete(name, metadata, arrays)
    return Part(name, role, metadata, lambda n: convert(arrays[n], metadata.dtype))


def make_gate(
    checkpoint: Checkpoint,
    experts: tuple[str, ...],
    dtype: str | None = None,
    policy: Policy | None = None,
) -> Part:
    """Make the part of the gate of all layers, its rows being `experts`.

    Its policy is the checkpoint's where none is given. Raises BadCheckpoint where a policy needs
    what the checkpoint's gates have not learned.
    """
    architecture = checkpoint.architecture
    layers = tuple(range(architecture.layers))
    learned = {layer: checkpoint.learned(layer) for layer in layers}
    arrays = {f"layers.{n}.{part}": a for n, parts in learned.items() for part, a in parts.items()}
    weights = {name: array for name, array in arrays.items() if name.endswith(f".{WEIGHT}")}
    dtype = dtype or _common_dtype(GATE, weights)
    policy = policy or architecture.policy
    metadata = GateMetadata(layers, architecture.hidden_size, experts, policy, dtype)
    lacking = [name for name in metadata.shapes if name not in arrays]
    if lacking:
        raise BadCheckpoint(f"the policy needs {lacking[0]}, which the checkpoint does not have")
    return Part(GATE, None, metadata, lambda n: convert(arrays[n], metadata.dtype_of(n)))


def read_slices(path: Path) -> Mapping[int, Mapping[Slice, Array]]:
    """Return the experts that a file with published names holds, by number.

    Raises BadCheckpoint where it holds anything else, or nothing.
    """
    file = open_container(path)
    experts: dict[int, dict[Slice, Array]] = {}
    for name in file.header.entries:
        part = parse_published(name)
        if part is None:
            right = "model.layers.L.block_sparse_moe.experts.E.w1.weight, w2 or w3"
            raise BadCheckpoint(f"{path} holds {name!r:.80}; each name must be like {right}")
        experts.setdefault(part.expert, {})[part] = file.array(name)
    if not experts:
        raise BadCheckpoint(f"{path} holds no tensors; an expert has three in each layer")
    return experts


def _common_dtype(name: str, arrays: Mapping[str, Array]) -> str:
    dtypes = sorted({NUMPY_NAMES[array.dtype.name] for array in arrays.values()})
    if len(dtypes) > 1:
        both = " and ".join(dtypes)
        raise BadCheckpoint(f"{name} is stored in {both}; choose one for its artifact (--dtype)")
    return dtypes[0]


def _check_complete(name: str, metadata: ExpertMetadata, arrays: Mapping[str, Array]) -> None:
    for tensor, shape in metadata.shapes.items():
        if tensor not in arrays:
            _, layer, projection = tensor.split(".")
            lacking = f"{PROJECTIONS[projection]} of layer {layer}"
            raise BadCheckpoint(f"expert {name} lacks {lacking}; each layer has w1, w2 and w3")
        if arrays[tensor].shape != shape:
            seen, right = list(arrays[tensor].shape), list(shape)
            raise BadCheckpoint(f"expert {name}: {tensor} has shape {seen}; it must be {right}")
