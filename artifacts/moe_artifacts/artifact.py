"""One artifact: its bytes from metadata and tensors, and back, every bound checked.

Whether numbers are finite is not looked at here: a version that answers NaN is a matter of its
rollout, and is found in the worker's answers. Neither is anything fetched here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from moe_artifacts.container import Container, lay_out, map_file, parse
from moe_artifacts.encoding import CODES, NUMPY_DTYPES, Array
from moe_artifacts.errors import BadArtifact, Refused, WrongDigest
from moe_artifacts.metadata import (
    BIAS,
    KEY,
    NOISE_WEIGHT,
    SELECTION_BIAS,
    WEIGHT,
    ExpertMetadata,
    GateMetadata,
    Metadata,
    from_text,
    to_text,
)

MAX_HEADER_BYTES = 4 << 20
_PIECE_BYTES = 1 << 22

Lookup = Callable[[str], Array]
"""Gives the tensor of a name when its turn comes, so that only one need be in memory."""


@dataclass(frozen=True, slots=True)
class ExpertLayer:
    """One layer's slice of an expert, in the artifact's dtype."""

    gate_proj: Array  # (I, H)
    up_proj: Array  # (I, H)
    down_proj: Array  # (H, I)


@dataclass(frozen=True, slots=True)
class ExpertArtifact:
    """An expert. Its arrays are views of a private mapping: read when touched, and writable (as
    torch wants them) without ever changing the file."""

    metadata: ExpertMetadata
    layers: Mapping[int, ExpertLayer]


@dataclass(frozen=True, slots=True)
class GateLayer:
    """One layer of a gate: its weights, and what else its policy says that it has learned."""

    weight: Array  # (E, H)
    bias: Array | None = None  # (E,), added to the logits
    selection_bias: Array | None = None  # (E,) float32, added to the scores where they select
    noise_weight: Array | None = None  # (E, H)


@dataclass(frozen=True, slots=True)
class GateArtifact:
    """A gate: its layers, whose arrays are views as in ExpertArtifact."""

    metadata: GateMetadata
    layers: Mapping[int, GateLayer]


def read_expert(path: Path, sha256: str | None = None) -> ExpertArtifact:
    """Read an expert, and first check its digest if one is given.

    Raises WrongDigest, BadArtifact (also when it is a gate), Refused where the file is unreadable.
    """
    metadata, file = _read(path, sha256)
    if not isinstance(metadata, ExpertMetadata):
        raise BadArtifact(f"{path}: kind is {metadata.KIND!r}; an expert is wanted here")
    layers = {}
    for layer in metadata.layers:
        names = (f"layers.{layer}.{p}" for p in ("gate_proj", "up_proj", "down_proj"))
        layers[layer] = ExpertLayer(*(file.array(name) for name in names))
    return ExpertArtifact(metadata, layers)


def read_gate(path: Path, sha256: str | None = None) -> GateArtifact:
    """Read a gate, and first check its digest if one is given. Raises as read_expert does."""
    metadata, file = _read(path, sha256)
    if not isinstance(metadata, GateMetadata):
        raise BadArtifact(f"{path}: kind is {metadata.KIND!r}; a gate is wanted here")
    parts, shapes = (WEIGHT, BIAS, SELECTION_BIAS, NOISE_WEIGHT), metadata.shapes
    layers = {}
    for layer in metadata.layers:
        own = {part: f"layers.{layer}.{part}" for part in parts}
        held = {part: file.array(name) for part, name in own.items() if name in shapes}
        layers[layer] = GateLayer(**held)
    return GateArtifact(metadata, layers)


def read_metadata(path: Path, sha256: str | None = None) -> Metadata:
    """Check an artifact of either kind in full, but for its values. Raises as read_expert does."""
    return _read(path, sha256)[0]


def _read(path: Path, sha256: str | None) -> tuple[Metadata, Container]:
    text, file = open_artifact(path, sha256)
    try:
        metadata = from_text(text)
        _check_tensors(metadata, file)
    except BadArtifact as error:
        raise BadArtifact(f"{path}: {error}") from None
    return metadata, file


def open_artifact(path: Path, sha256: str | None) -> tuple[str, Container]:
    """Map an artifact of any kind: the text of its metadata, and its checked container.

    Its digest, if one is given, is checked before anything is parsed. Raises as read_expert does.
    """
    content = map_file(path, private=True)
    if sha256 is not None:
        seen = hashlib.sha256(content).hexdigest()
        if seen != sha256:
            raise WrongDigest(f"{path}: sha256 is {seen}; {sha256} was asked for")
    try:
        file = Container(path, parse(content, MAX_HEADER_BYTES), content)
    except BadArtifact as error:
        raise BadArtifact(f"{path}: {error}") from None
    text = file.header.metadata.get(KEY)
    if text is None:
        raise BadArtifact(f"{path}: metadata {KEY!r} is missing; every artifact has it")
    return text, file


def _check_tensors(metadata: Metadata, file: Container) -> None:
    shapes, entries = metadata.shapes, file.header.entries
    for name, shape in shapes.items():
        entry = entries.get(name)
        if entry is None:
            raise BadArtifact(f"tensor {name} is missing; layers say that it is there")
        code = CODES[metadata.dtype_of(name)]
        if entry.code != code:
            raise BadArtifact(f"tensor {name} is {entry.code}; dtype says {code}")
        if entry.shape != shape:
            seen, right = list(entry.shape), list(shape)
            raise BadArtifact(f"tensor {name} has shape {seen}; the metadata say {right}")
    extra = sorted(entries.keys() - shapes.keys())
    if extra:
        raise BadArtifact(f"tensor {extra[0]:.60} belongs to no layer of the metadata")


def encode(metadata: Metadata, lookup: Lookup) -> Iterator[bytes | memoryview]:
    """Give the artifact's bytes piece by piece, a tensor at a time: deterministic.

    `lookup` is asked for the names of `metadata.shapes` in order. Raises BadArtifact where what it
    gives is not of the metadata's shape and dtype.
    """
    shapes, dtypes = metadata.shapes, {name: metadata.dtype_of(name) for name in metadata.shapes}
    entries = ((name, CODES[dtypes[name]], shape) for name, shape in shapes.items())
    yield lay_out({KEY: to_text(metadata)}, entries)
    for name, shape in shapes.items():
        array, dtype = lookup(name), NUMPY_DTYPES[dtypes[name]]
        if array.shape != shape or array.dtype != dtype:
            seen = f"{array.dtype} of shape {list(array.shape)}"
            raise BadArtifact(f"tensor {name} is {seen}; it must be {dtype} of {list(shape)}")
        yield from _pieces(array)


def _pieces(array: Array) -> Iterator[memoryview]:
    raw = memoryview(array.reshape(-1).view(np.uint8).data)
    for start in range(0, len(raw), _PIECE_BYTES):
        yield raw[start : start + _PIECE_BYTES]


def sha256_of(metadata: Metadata, lookup: Lookup) -> str:
    """Return the digest of the artifact that `encode` gives, without writing it anywhere."""
    digest = hashlib.sha256()
    for piece in encode(metadata, lookup):
        digest.update(piece)
    return digest.hexdigest()


def sha256_of_file(path: Path, between: Callable[[], None] = lambda: None) -> str:
    """Return the digest of a file, calling `between` after each piece; Refused if unreadable."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while piece := file.read(_PIECE_BYTES):
                digest.update(piece)
                between()
    except OSError as error:
        raise Refused(f"{path} cannot be read: {error.strerror}") from None
    return digest.hexdigest()
