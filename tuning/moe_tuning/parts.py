"""Experts and gate of one version of a mixture as tensors, to compute with and to write again.

Float32 here, whatever the artifacts have: `rounded` gives the numbers that will be served.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor

from moe_artifacts.artifact import ExpertArtifact
from moe_artifacts.encoding import Array, convert
from moe_artifacts.errors import Refused
from moe_artifacts.metadata import ExpertMetadata, GateMetadata, Metadata
from moe_core.policy import Policy
from moe_tuning.folder import Folder

Weights = Mapping[str, Tensor]
"""The tensors of an expert or a gate by their names in the artifact, float32."""


@dataclass(frozen=True, slots=True)
class Parts:
    """A gate, and the experts that it lists, in the order of its rows."""

    gate_metadata: GateMetadata
    expert_metadata: ExpertMetadata
    gate: Weights
    experts: Mapping[str, Weights]

    @property
    def ids(self) -> tuple[str, ...]:
        return self.gate_metadata.experts

    @property
    def policy(self) -> Policy:
        return self.gate_metadata.policy

    def learned(self, layer: int) -> Weights:
        """Return what the gate has learned in a layer, by `weight`, `bias` and so on."""
        prefix = f"layers.{layer}."
        return {n.removeprefix(prefix): t for n, t in self.gate.items() if n.startswith(prefix)}

    def with_rows(
        self, rows: Weights, experts: Mapping[str, Weights], policy: Policy | None = None
    ) -> Self:
        """Return other `rows` of the gate by tensor, each of E, for these experts in order."""
        metadata = replace(self.gate_metadata, experts=tuple(experts), policy=policy or self.policy)
        return replace(self, gate_metadata=metadata, gate=rows, experts=experts)

    def row(self, expert: str) -> int:
        """Return the expert's row. Raises Refused where the gate does not list it."""
        if expert not in self.ids:
            raise Refused(f"the gate lists no expert {expert!r}; it lists {', '.join(self.ids)}")
        return self.ids.index(expert)

    def rounded(self) -> Self:
        """Return the numbers as artifacts hold them."""
        metadata = self.expert_metadata
        experts = {name: _round(weights, metadata) for name, weights in self.experts.items()}
        return replace(self, gate=_round(self.gate, self.gate_metadata), experts=experts)


def read_parts(folder: Folder) -> Parts:
    """Read the gate of a folder and its experts. Raises Refused where experts are not alike."""
    gate = folder.gate()
    artifacts = {name: folder.expert(name) for name in gate.metadata.experts}
    metadata = next(iter(artifacts.values())).metadata
    for name, artifact in artifacts.items():
        if artifact.metadata != metadata or metadata.layers != gate.metadata.layers:
            raise Refused(
                f"expert {name} has other layers, shapes or numbers than the gate or the first "
                "expert; these tools need all of them alike"
            )
    rows = {
        name: _tensor(getattr(gate.layers[int(layer)], part))
        for name in gate.metadata.shapes
        for _, layer, part in (name.split("."),)
    }
    experts = {name: _weights(artifact) for name, artifact in artifacts.items()}
    return Parts(gate.metadata, metadata, rows, experts)


def to_arrays(weights: Weights, metadata: Metadata) -> Mapping[str, Array]:
    """Return tensors as an artifact of these metadata holds them."""
    return {name: convert(t.numpy(), metadata.dtype_of(name)) for name, t in weights.items()}


def _weights(artifact: ExpertArtifact) -> Weights:
    return {
        f"layers.{number}.{name}": _tensor(array)
        for number, layer in artifact.layers.items()
        for name, array in (
            ("gate_proj", layer.gate_proj),
            ("up_proj", layer.up_proj),
            ("down_proj", layer.down_proj),
        )
    }


def _tensor(array: Array) -> Tensor:
    return torch.from_numpy(np.array(array, np.float32))


def _round(weights: Weights, metadata: Metadata) -> Weights:
    return {name: _tensor(array) for name, array in to_arrays(weights, metadata).items()}
