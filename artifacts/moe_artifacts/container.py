"""Reads and lays out safetensors files, and trusts nothing that they say about themselves.

A file is header length (uint64, little endian) | header (JSON, padded with spaces) | data. Format:
https://huggingface.co/docs/safetensors. Every offset is checked against the file before it is
used, tensors must fill the data without holes, and values are only ever views of a mapping.
The layout written here is our own, not a library's, because digests depend on it.
"""

from __future__ import annotations

import json
import math
import mmap
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from moe_artifacts.encoding import ITEM_BYTES, NAMES, NUMPY_DTYPES, Array
from moe_artifacts.errors import BadArtifact, Refused

Shape = tuple[int, ...]

_LENGTH = struct.Struct("<Q")
_ALIGNMENT = 64
MAX_HEADER_BYTES = 100_000_000
_MAX_DIMENSIONS = 8


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor: its safetensors code, its shape, and where its bytes are in the data."""

    code: str
    shape: Shape
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says of itself, checked: entries lie one after another and fill the data."""

    metadata: Mapping[str, str]
    entries: Mapping[str, Entry]
    data_at: int


@dataclass(frozen=True, slots=True)
class Container:
    """An open file, mapped; what it gives are views."""

    path: Path
    header: Header
    mapping: memoryview

    def raw(self, name: str) -> memoryview:
        """Return the bytes of a tensor; KeyError if there is none of that name."""
        entry, start = self.header.entries[name], self.header.data_at
        return self.mapping[start + entry.begin : start + entry.end]

    def array(self, name: str) -> Array:
        """Return a tensor in its stored dtype; BadArtifact unless that is a float of 16 or 32."""
        entry = self.header.entries[name]
        if entry.code not in NAMES:
            codes = ", ".join(sorted(NAMES))
            raise BadArtifact(f"{self.path}: {name} is {entry.code}; it must be one of {codes}")
        numbers = np.frombuffer(self.raw(name), dtype=NUMPY_DTYPES[NAMES[entry.code]])
        return numbers.reshape(entry.shape)


def open_container(path: Path) -> Container:
    """Map a safetensors file and check its header. Raises BadArtifact, or Refused if unreadable."""
    mapping = map_file(path)
    try:
        header = parse(mapping, MAX_HEADER_BYTES)
    except BadArtifact as error:
        raise BadArtifact(f"{path}: {error}") from None
    return Container(path, header, mapping)


def map_file(path: Path, *, private: bool = False) -> memoryview:
    """Map a whole file read-only, or writable but `private`: then writing changes no file.

    An empty file gives an empty view. Raises Refused.
    """
    access = mmap.ACCESS_COPY if private else mmap.ACCESS_READ
    try:
        with path.open("rb") as file:
            if file.seek(0, 2) == 0:
                return memoryview(b"")
            return memoryview(mmap.mmap(file.fileno(), 0, access=access))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise Refused(f"{path} cannot be read: {reason}") from None


def parse(content: memoryview, max_header_bytes: int) -> Header:
    """Read and check the header of a whole file's content. Raises BadArtifact."""
    if len(content) < _LENGTH.size:
        raise BadArtifact(f"the file has {len(content)} bytes; a safetensors file has 8 or more")
    (length,) = _LENGTH.unpack(content[: _LENGTH.size])
    room = min(max_header_bytes, len(content) - _LENGTH.size)
    if length > room:
        raise BadArtifact(f"header length is {length}; it must be at most {room} in this file")
    data_at = _LENGTH.size + length
    fields = _parse_json(bytes(content[_LENGTH.size : data_at]))
    metadata = _check_metadata(fields.pop("__metadata__", {}))
    entries = {name: _check_entry(name, value) for name, value in fields.items()}
    _check_filled(entries, len(content) - data_at)
    return Header(metadata, entries, data_at)


def _parse_json(text: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        fields = dict(pairs)
        if len(fields) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise BadArtifact(f"header names {twice!r} twice; each name must be there once")
        return fields

    try:
        fields = json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise BadArtifact(f"header is not JSON ({error}); it must be a JSON object") from None
    if not isinstance(fields, dict):
        raise BadArtifact(f"header is a {type(fields).__name__}; it must be a JSON object")
    return fields


def _check_metadata(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
        raise BadArtifact("header.__metadata__ must be an object whose values are text")
    return value


def _check_entry(name: str, value: Any) -> Entry:
    def wrong(field: str, seen: Any, right: str) -> BadArtifact:
        return BadArtifact(f"header.{name}.{field} is {seen!r:.60}; it must be {right}")

    if not isinstance(value, dict):
        raise BadArtifact(f"header.{name} is {value!r:.60}; it must be an object")
    code: Any = value.get("dtype")
    shape: Any = value.get("shape")
    offsets: Any = value.get("data_offsets")
    if not isinstance(code, str) or code not in ITEM_BYTES:
        raise wrong("dtype", code, f"one of {', '.join(ITEM_BYTES)}")
    if not _are_sizes(shape) or len(shape) > _MAX_DIMENSIONS:
        raise wrong("shape", shape, f"a list of at most {_MAX_DIMENSIONS} sizes")
    if not _are_sizes(offsets) or len(offsets) != 2:
        raise wrong("data_offsets", offsets, "[begin, end]")
    size = math.prod(shape) * ITEM_BYTES[code]
    if offsets[1] - offsets[0] != size:
        raise wrong("data_offsets", offsets, f"{size} bytes apart, as {code} of shape {shape} is")
    return Entry(code, tuple(shape), offsets[0], offsets[1])


def _are_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(v) is int and 0 <= v < 2**63 for v in value)


def _check_filled(entries: Mapping[str, Entry], data_bytes: int) -> None:
    at = 0
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)):
        if entry.begin != at:
            raise BadArtifact(
                f"header.{name}.data_offsets begins at {entry.begin}; it must begin at {at}, "
                "where the tensor before it ends"
            )
        at = entry.end
    if at != data_bytes:
        raise BadArtifact(f"the file has {data_bytes} bytes of data; its header speaks of {at}")


def lay_out(
    metadata: Mapping[str, str], tensors: Iterable[tuple[str, str, tuple[int, ...]]]
) -> bytes:
    """Return length and header of a file whose data is (name, code, shape) in this order.

    The data begins at a multiple of 64 bytes; the same arguments give the same bytes.
    """
    fields: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    at = 0
    for name, code, shape in tensors:
        end = at + math.prod(shape) * ITEM_BYTES[code]
        fields[name] = {"dtype": code, "shape": list(shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(fields, separators=(",", ":")).encode()
    text += b" " * (-(_LENGTH.size + len(text)) % _ALIGNMENT)
    return _LENGTH.pack(len(text)) + text
