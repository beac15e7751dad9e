"""A golden set: sequences of tokens, each of one slice, on which versions are compared.

One safetensors file, an artifact like those of experts: known by its digest, laid out here, and
trusted only once every bound was checked. What text its tokens come from is not its matter.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from moe_artifacts.artifact import open_artifact
from moe_artifacts.container import Container, lay_out
from moe_artifacts.errors import BadArtifact
from moe_artifacts.metadata import FORMAT, KEY
from moe_core.document import InvalidDocument, Reader

KIND = "golden"
MIN_SEQUENCES, MAX_SEQUENCES = 8, 100_000
MIN_TOKENS = 2
"""The first token of a sequence is only read; each that follows has a loss."""
MAX_SLICES = 16
MAX_VOCAB = 1 << 24
SLICE: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,38}[A-Za-z0-9])?")

_CODES: Final[Mapping[str, tuple[str, str]]] = {
    "tokens": ("I32", "<i4"),
    "offsets": ("I64", "<i8"),
    "slice": ("I32", "<i4"),
}
"""Tensors in the order in which the file holds them: safetensors' code, numpy's."""


@dataclass(frozen=True, slots=True)
class Sequence:
    """Some tokens of one slice."""

    slice: str
    tokens: NDArray[np.int32]  # (T,)


@dataclass(frozen=True, slots=True)
class Golden:
    """Sequences in the order of the file; tokens are below `vocab`. Raises BadArtifact."""

    vocab: int
    slices: tuple[str, ...]
    sequences: tuple[Sequence, ...]

    def __post_init__(self) -> None:
        _check_slices(self.slices)
        if not 2 <= self.vocab <= MAX_VOCAB:
            raise BadArtifact(f"vocab is {self.vocab}; it must be from 2 to {MAX_VOCAB}")
        if not MIN_SEQUENCES <= len(self.sequences) <= MAX_SEQUENCES:
            right = f"{MIN_SEQUENCES} to {MAX_SEQUENCES}"
            raise BadArtifact(f"there are {len(self.sequences)} sequences; there must be {right}")
        for number, sequence in enumerate(self.sequences):
            _check_sequence(number, sequence, self)
        unused = sorted(set(self.slices) - {sequence.slice for sequence in self.sequences})
        if unused:
            raise BadArtifact(f"slice {unused[0]!r} has no sequence; each slice must have one")

    @property
    def tokens(self) -> int:
        """Tokens of all sequences."""
        return sum(len(sequence.tokens) for sequence in self.sequences)

    def to_dict(self) -> dict[str, Any]:
        """Return what the file says of itself."""
        slices = list(self.slices)
        return {"format": FORMAT, "kind": KIND, "slices": slices, "vocab": self.vocab}


def encode(golden: Golden) -> bytes:
    """Return the file's bytes: the same set has the same, and so the same digest."""
    lengths = [len(sequence.tokens) for sequence in golden.sequences]
    places = [golden.slices.index(sequence.slice) for sequence in golden.sequences]
    arrays = {
        "tokens": np.concatenate([sequence.tokens for sequence in golden.sequences]),
        "offsets": np.cumsum([0, *lengths]),
        "slice": np.array(places),
    }
    text = json.dumps(golden.to_dict(), sort_keys=True, separators=(",", ":"))
    described = ((name, code, arrays[name].shape) for name, (code, _) in _CODES.items())
    data = (arrays[name].astype(dtype).tobytes() for name, (_, dtype) in _CODES.items())
    return lay_out({KEY: text}, described) + b"".join(data)


def sha256_of(golden: Golden) -> str:
    """Return the digest of the set's file, which is its identity."""
    return hashlib.sha256(encode(golden)).hexdigest()


def read_golden(path: Path, sha256: str | None = None) -> Golden:
    """Read a golden set, and first check its digest if one is given.

    Raises WrongDigest, BadArtifact (also when it is an expert or a gate), Refused where the file
    is unreadable.
    """
    text, file = open_artifact(path, sha256)
    try:
        slices, vocab = _read_text(text)
        return Golden(vocab, slices, tuple(_sequences(file, slices)))
    except BadArtifact as error:
        raise BadArtifact(f"{path}: {error}") from None


def is_golden(text: str) -> bool:
    """Say whether these metadata of an artifact are those of a golden set."""
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(fields, dict) and fields.get("kind") == KIND


def _read_text(text: str) -> tuple[tuple[str, ...], int]:
    try:
        reader = Reader(json.loads(text), KEY)
        if (version := reader.integer("format")) != FORMAT:
            raise BadArtifact(f"{KEY}.format is {version}; this program reads {FORMAT}")
        if (kind := reader.text("kind")) != KIND:
            raise BadArtifact(f"kind is {kind!r:.60}; a golden set is wanted here")
        slices, vocab = reader.texts("slices"), reader.integer("vocab")
    except InvalidDocument as error:
        raise BadArtifact(str(error)) from None
    except (ValueError, RecursionError) as error:
        raise BadArtifact(f"metadata {KEY!r} is not JSON ({error})") from None
    _check_slices(slices)
    return slices, vocab


def _sequences(file: Container, slices: tuple[str, ...]) -> Iterator[Sequence]:
    arrays = {name: _array(file, name) for name in _CODES}
    extra = sorted(file.header.entries.keys() - _CODES.keys())
    if extra:
        raise BadArtifact(f"tensor {extra[0]:.60} is none of {', '.join(_CODES)}")
    tokens, offsets, places = arrays["tokens"], arrays["offsets"], arrays["slice"]
    if len(offsets) != len(places) + 1:
        right = f"{len(places) + 1}, one more than slice"
        raise BadArtifact(f"tensor offsets has {len(offsets)} numbers; it must have {right}")
    if offsets[0] != 0 or offsets[-1] != len(tokens):
        right = f"from 0 to {len(tokens)}, the number of tokens"
        raise BadArtifact(f"offsets go from {offsets[0]} to {offsets[-1]}; they must go {right}")
    for number, (first, last) in enumerate(pairwise(offsets.tolist())):
        if last < first:
            raise BadArtifact(f"offsets[{number + 1}] is {last}; it must be {first} or more")
        place = int(places[number])
        if not 0 <= place < len(slices):
            right = f"from 0 to {len(slices) - 1}, a slice"
            raise BadArtifact(f"slice[{number}] is {place}; it must be {right}")
        yield Sequence(slices[place], tokens[first:last])


def _array(file: Container, name: str) -> NDArray[Any]:
    code, dtype = _CODES[name]
    entry = file.header.entries.get(name)
    if entry is None:
        raise BadArtifact(f"tensor {name} is missing; a golden set has {', '.join(_CODES)}")
    if entry.code != code or len(entry.shape) != 1:
        seen = f"{entry.code} of shape {list(entry.shape)}"
        raise BadArtifact(f"tensor {name} is {seen}; it must be {code} of one dimension")
    return np.frombuffer(file.raw(name), dtype)


def _check_slices(slices: tuple[str, ...]) -> None:
    if not 1 <= len(slices) <= MAX_SLICES:
        raise BadArtifact(f"there are {len(slices)} slices; there must be 1 to {MAX_SLICES}")
    for index, name in enumerate(slices):
        if not SLICE.fullmatch(name):
            right = "1 to 40 letters, digits, dots, underscores and hyphens, no sign at either end"
            raise BadArtifact(f"slices[{index}] is {name!r:.60}; it must be {right}")
        if slices.index(name) != index:
            raise BadArtifact(f"slices[{index}] is {name!r}, which is there already")


def _check_sequence(number: int, sequence: Sequence, golden: Golden) -> None:
    tokens = sequence.tokens
    if sequence.slice not in golden.slices:
        known = ", ".join(golden.slices)
        raise BadArtifact(f"sequence {number} is of slice {sequence.slice!r}; there are {known}")
    if len(tokens) < MIN_TOKENS:
        raise BadArtifact(f"sequence {number} has {len(tokens)} tokens; it must have 2 or more")
    wrong = tokens[(tokens < 0) | (tokens >= golden.vocab)]
    if len(wrong):
        right = f"from 0 to {golden.vocab - 1}, below vocab"
        raise BadArtifact(f"sequence {number} has the token {wrong[0]}; it must be {right}")
