"""Makes kernels of an artifact: the checks that need this worker's settings, loading, warming."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from moe_artifacts.artifact import ExpertArtifact
from moe_artifacts.encoding import Array
from moe_artifacts.errors import BadArtifact
from moe_core.dtypes import ElementType, by_numpy
from moe_core.exactness import fast, machine, prove
from moe_core.kernel import ExpertKernel, Rule, torch_dtype

_CPU: Final = torch.device("cpu")
_BITS = {2: np.int16, 4: np.int32}


@dataclass(frozen=True, slots=True)
class Fit:
    """What an artifact must be to be served here."""

    hidden_size: int
    dtype: ElementType

    def check(self, artifact: ExpertArtifact, layers: tuple[int, ...]) -> tuple[int, ...]:
        """Return the layers to serve, all where none are named. Raises BadArtifact."""
        metadata = artifact.metadata
        metadata.check_serves(self.hidden_size, layers)
        if metadata.dtype != self.dtype.name:
            raise BadArtifact(
                f"the artifact's dtype is {metadata.dtype}; the mixture's is {self.dtype.name}"
            )
        return layers or metadata.layers


class Rules:
    """The rules of exactness for the shapes seen so far, each proven once."""

    def __init__(self, element: ElementType, exact: bool, device: torch.device = _CPU) -> None:
        self.device = device
        self._element = element
        self._exact = exact
        self._proven: dict[tuple[int, int], Rule] = {}
        self._lock = threading.Lock()

    def rule(self, hidden: int, intermediate: int) -> Rule:
        """Return the rule for a shape. Raises NotExact where there is none."""
        with self._lock:
            shape = hidden, intermediate
            if shape not in self._proven:
                dtype = torch_dtype(self._element)
                at = self.device
                self._proven[shape] = prove(dtype, *shape, at) if self._exact else fast(at)
            return self._proven[shape]

    @property
    def fingerprint(self) -> str:
        """Of the rules in use; of the machine alone before there is one."""
        with self._lock:
            known = sorted({rule.fingerprint for rule in self._proven.values()})
            return "; ".join(known) or machine(self.device)


def load(
    artifact: ExpertArtifact, layers: Collection[int], rules: Rules
) -> dict[int, ExpertKernel]:
    """Copy these layers' weights into kernels. Raises NotExact, torch.OutOfMemoryError."""
    metadata = artifact.metadata
    device = rules.device
    rule = rules.rule(metadata.hidden_size, metadata.intermediate_size)
    kernels = {}
    for number in layers:
        layer = artifact.layers[number]
        gate_proj, up_proj, down_proj = (
            _tensor(array).to(device) for array in (layer.gate_proj, layer.up_proj, layer.down_proj)
        )
        kernels[number] = ExpertKernel(gate_proj, up_proj, down_proj, rule)
    return kernels


def warm(kernels: Iterable[ExpertKernel]) -> None:
    """Compute a row with each, so that the first request finds everything in its place."""
    for kernel in kernels:
        kernel(torch.zeros((1, kernel.hidden_size), dtype=kernel.dtype, device=kernel.device))


def _tensor(array: Array) -> torch.Tensor:
    """View an array as a tensor; torch takes no bfloat16 from numpy, so it goes as bits."""
    bits = torch.from_numpy(array.view(_BITS[array.itemsize]))
    return bits.view(torch_dtype(by_numpy(array.dtype)))
