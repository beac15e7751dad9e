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
from moe_artifacts.metadata import ExpertMetadata, GateMetadata
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

    def with_rows(self, rows: Mapping[str, Tensor], experts: Mapping[str, Weights]) -> Self:
        """Return other `rows` of the gate by tensor, each (E, H), for these experts in order."""
        metadata = replace(self.gate_metadata, experts=tuple(experts))
        return replace(self, gate_metadata=metadata, gate=rows, experts=experts)

    def row(self, expert: str) -> int:
        """Return the expert's row. Raises Refused where the gate does not list it."""
        if expert not in self.ids:
            raise Refused(f"the gate lists no expert {expert!r}; it lists {', '.join(self.ids)}")
        return self.ids.index(expert)

    def rounded(self) -> Self:
        """Return the numbers as artifacts hold them."""
        dtype = self.gate_metadata.dtype
        experts = {name: _round(weights, dtype) for name, weights in self.experts.items()}
        return replace(self, gate=_round(self.gate, dtype), experts=experts)


def read_parts(folder: Folder) -> Parts:
    """Read the gate of a folder and its experts. Raises Refused for a policy not known here."""
    gate = folder.gate()
    policy = gate.metadata.policy
    if not policy.plain:
        text = "these tools know TopK without settings"
        raise Refused(f"the gate's policy is {policy.to_dict()}; {text}")
    artifacts = {name: folder.expert(name) for name in gate.metadata.experts}
    metadata = next(iter(artifacts.values())).metadata
    for name, artifact in artifacts.items():
        if artifact.metadata != metadata or metadata.layers != gate.metadata.layers:
            raise Refused(
                f"expert {name} has other layers, shapes or numbers than the gate or the first "
                "expert; these tools need all of them alike"
            )
    rows = {f"layers.{layer}.weight": _tensor(held.weight) for layer, held in gate.layers.items()}
    experts = {name: _weights(artifact) for name, artifact in artifacts.items()}
    return Parts(gate.metadata, metadata, rows, experts)


def to_arrays(weights: Weights, dtype: str) -> Mapping[str, Array]:
    """Return tensors as an artifact of this dtype holds them."""
    return {name: convert(tensor.numpy(), dtype) for name, tensor in weights.items()}


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


def _round(weights: Weights, dtype: str) -> Weights:
    return {name: _tensor(array) for name, array in to_arrays(weights, dtype).items()}
