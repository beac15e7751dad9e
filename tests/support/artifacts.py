"""Writes random expert artifacts for tests, with the project's own encoder."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from moe_artifacts.artifact import encode
from moe_artifacts.encoding import Array
from moe_artifacts.metadata import ExpertMetadata
from moe_core.dtypes import by_name


@dataclass(frozen=True, slots=True)
class WrittenExpert:
    """An artifact on disk and, by tensor name, what is in it."""

    path: Path
    sha256: str
    tensors: dict[str, Array]

    @property
    def uri(self) -> str:
        return self.path.as_uri()

    def assigned(self, expert_id: str, layers: Sequence[int] = ()) -> dict[str, object]:
        """Return the entry of a worker's assignment."""
        return {
            "expertId": expert_id,
            "version": "v1",
            "uri": self.uri,
            "sha256": self.sha256,
            "layers": list(layers),
        }


def write_expert(
    directory: Path,
    *,
    layers: Sequence[int] = (0,),
    hidden_size: int = 32,
    intermediate_size: int = 48,
    dtype: str = "BFloat16",
    seed: int = 0,
    broken: bool = False,
) -> WrittenExpert:
    """Write an expert with random weights; a `broken` one answers NaN to everything."""
    metadata = ExpertMetadata(tuple(layers), hidden_size, intermediate_size, dtype)
    rng = np.random.default_rng(seed)
    tensors: dict[str, Array] = {}
    for name, shape in metadata.shapes.items():
        values = rng.standard_normal(shape, dtype=np.float32) * shape[1] ** -0.5
        tensors[name] = values.astype(by_name(dtype).numpy)
        if broken and name.endswith("down_proj"):
            tensors[name][:] = np.nan
    content = b"".join(bytes(piece) for piece in encode(metadata, tensors.__getitem__))
    sha256 = hashlib.sha256(content).hexdigest()
    path = directory / f"{sha256[:10]}.safetensors"
    path.write_bytes(content)
    return WrittenExpert(path, sha256, tensors)
