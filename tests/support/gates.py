"""Writes gate artifacts for tests, with the project's own encoder."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from moe_artifacts.artifact import encode
from moe_artifacts.encoding import Array
from moe_artifacts.metadata import GateMetadata
from moe_core.dtypes import by_numpy
from moe_core.policy import Policy


@dataclass(frozen=True, slots=True)
class WrittenGate:
    """A gate artifact on disk."""

    path: Path
    sha256: str


def write_gate(
    directory: Path,
    layers: Mapping[int, Array],
    experts: Sequence[str],
    *,
    top_k: int = 2,
    policy: Policy | None = None,
    others: Mapping[str, Array] | None = None,
    name: str = "gate",
) -> WrittenGate:
    """Write the weights (E, H) of some layers, in their own dtype, and `others` by full name."""
    first = next(iter(layers.values()))
    dtype = by_numpy(first.dtype).name
    metadata = GateMetadata(
        tuple(layers), first.shape[1], tuple(experts), policy or Policy(top_k), dtype
    )
    tensors = {f"layers.{layer}.weight": weight for layer, weight in layers.items()}
    tensors |= others or {}
    content = b"".join(bytes(piece) for piece in encode(metadata, tensors.__getitem__))
    path = directory / f"{name}.safetensors"
    path.write_bytes(content)
    return WrittenGate(path, hashlib.sha256(content).hexdigest())
