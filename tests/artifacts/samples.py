"""Small artifacts with known numbers, and files that are wrong in one chosen way."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from moe_artifacts.artifact import encode
from moe_artifacts.encoding import NUMPY_DTYPES, Array
from moe_artifacts.metadata import ExpertMetadata, GateMetadata, Metadata
from moe_core.policy import Policy

EXPERT = ExpertMetadata(layers=(0, 2), hidden_size=4, intermediate_size=6, dtype="BFloat16")
GATE = GateMetadata(
    layers=(0, 1), hidden_size=4, experts=("e0", "e1", "e2"), policy=Policy(2), dtype="Float32"
)


def numbers(metadata: Metadata, seed: int = 0) -> Mapping[str, Array]:
    """Tensors that fit the metadata; whole numbers from -128 to 127, the same for the same seed."""
    tensors = {}
    for place, (name, shape) in enumerate(metadata.shapes.items()):
        counted = np.arange(math.prod(shape)) * 37 + place * 11 + seed
        tensors[name] = (
            (counted % 256 - 128).reshape(shape).astype(NUMPY_DTYPES[metadata.dtype_of(name)])
        )
    return tensors


def artifact_bytes(metadata: Metadata, seed: int = 0) -> bytes:
    return b"".join(encode(metadata, numbers(metadata, seed).__getitem__))


def write_artifact(path: Path, metadata: Metadata = EXPERT, seed: int = 0) -> Path:
    path.write_bytes(artifact_bytes(metadata, seed))
    return path


def header_of(content: bytes) -> dict[str, Any]:
    (length,) = struct.unpack("<Q", content[:8])
    fields: dict[str, Any] = json.loads(content[8 : 8 + length])
    return fields


def with_header(content: bytes, header: object) -> bytes:
    """The same data under another header."""
    (length,) = struct.unpack("<Q", content[:8])
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


def with_metadata(content: bytes, **changed: object) -> bytes:
    """The same file whose `moeops` metadata have other values; None takes one away."""
    header = header_of(content)
    fields = json.loads(header["__metadata__"]["moeops"]) | changed
    kept = {name: value for name, value in fields.items() if value is not None}
    header["__metadata__"]["moeops"] = json.dumps(kept)
    return with_header(content, header)
