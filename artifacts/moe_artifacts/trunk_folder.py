"""A trunk as a folder: what a client needs to run the model whose experts are served elsewhere.

It is a checkpoint without its experts: config.json and one safetensors file, which also holds the
gates, since the model applies them. `moe_client.load_trunk` reads it as it reads a whole
checkpoint. Its identity is the trunk's digest (`moe_artifacts.trunk`), not the file's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from moe_artifacts.artifact import sha256_of_file
from moe_artifacts.checkpoint import Checkpoint
from moe_artifacts.container import lay_out
from moe_artifacts.encoding import CODES
from moe_artifacts.errors import Refused
from moe_artifacts.names import gates
from moe_artifacts.parts import NUMPY_NAMES
from moe_artifacts.trunk import Tensor
from moe_artifacts.whole_files import write_whole

FOLDER = "trunk"
_WEIGHTS = "model.safetensors"
_CONFIGS = ("config.json", "generation_config.json")
_PIECE_BYTES = 1 << 22


def write_trunk(folder: Path, checkpoint: Checkpoint, on_bytes: Callable[[int], None]) -> None:
    """Write the folder, but for weights that are there and right.

    `on_bytes` is told what was read. Raises BadCheckpoint, Refused.
    """
    for name in _CONFIGS:
        if (source := checkpoint.directory / name).exists():
            write_whole(folder / name, [_read(source)])
    path = folder / _WEIGHTS
    digest = hashlib.sha256()
    for piece in _encode(checkpoint):
        digest.update(piece)
        on_bytes(len(piece))
    if not path.exists() or sha256_of_file(path) != digest.hexdigest():
        write_whole(path, _encode(checkpoint))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Refused(f"{path} cannot be read: {error.strerror}") from None


def _encode(checkpoint: Checkpoint) -> Iterator[bytes | memoryview]:
    """Give the file's bytes piece by piece: however the checkpoint is cut, they are the same."""
    tensors = sorted(_tensors(checkpoint), key=lambda tensor: tensor[0])
    described = ((name, code, tuple(shape)) for name, _, shape, code in tensors)
    yield lay_out({"format": "pt"}, described)
    for _, data, _, _ in tensors:
        raw = memoryview(data)
        for start in range(0, raw.nbytes, _PIECE_BYTES):
            yield raw[start : start + _PIECE_BYTES]


def _tensors(checkpoint: Checkpoint) -> Iterator[Tensor]:
    yield from checkpoint.trunk()
    for layer, number in enumerate(checkpoint.architecture.moe_layers):
        for part, array in checkpoint.learned(layer).items():
            raw = array.reshape(-1).view(np.uint8).data
            yield gates(number, part)[1], raw, array.shape, CODES[NUMPY_NAMES[array.dtype.name]]
