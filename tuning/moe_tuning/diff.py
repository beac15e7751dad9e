"""Says what differs between two artifacts, or two folders of them. Torch-free; writes nothing.

The norm of a difference is Frobenius', relative to that of A. Versions are names: two folders
whose artifacts are the same and called otherwise differ.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from moe_artifacts.artifact import open_artifact, read_metadata, sha256_of_file
from moe_artifacts.container import Container
from moe_artifacts.encoding import Array
from moe_artifacts.errors import Refused
from moe_artifacts.golden import is_golden
from moe_artifacts.index import Entry
from moe_artifacts.metadata import WEIGHT, GateMetadata, Metadata
from moe_tuning.folder import Folder, open_folder

SAME, DIFFERENT = 0, 5


def diff(a: Path, b: Path, others: tuple[Path, ...] = ()) -> int:
    """Print what differs; return SAME or DIFFERENT. Raises Refused where it cannot be said."""
    if a.is_dir() != b.is_dir():
        raise Refused(f"{a} and {b} must both be folders, or both artifacts")
    if a.is_dir():
        lines = [*_folders(open_folder(a, others), open_folder(b, others))]
    else:
        lines = [*_artifacts(a, b)]
    for line in lines:
        print(line)
    return DIFFERENT if lines else SAME


def _folders(a: Folder, b: Folder) -> Iterator[str]:
    for what in ("mixture", "hidden_size", "layers", "dtype", "trunk_sha256"):
        yield from _value(what.replace("_", " "), getattr(a.index, what), getattr(b.index, what))
    for name in dict.fromkeys(e.name for index in (a.index, b.index) for e in index.entries):
        one, other = a.index.entry(name), b.index.entry(name)
        if one is None or other is None:
            there = _named(one or other)
            yield f"{name}: only in {'A' if one else 'B'} ({there})"
        elif one != other and (one.sha256, one.version) != (other.sha256, other.version):
            yield f"{name}: {_named(one)} -> {_named(other)}"
            if one.sha256 != other.sha256:
                inner = _artifacts(a.find(one), b.find(other))
                yield from (f"  {line}" for line in inner)


def _named(entry: Entry | None) -> str:
    assert entry is not None
    return f"{entry.version} {entry.sha256[:10]}"


def _artifacts(a: Path, b: Path) -> Iterator[str]:
    """Give what differs between two artifacts, both experts or both gates."""
    if sha256_of_file(a) == sha256_of_file(b):
        return
    (one, first), (other, second) = _open(a), _open(b)
    before, after = one.to_dict(), other.to_dict()
    if one.KIND != other.KIND:
        raise Refused(f"{a} and {b} are of both kinds: {one.KIND} and {other.KIND}")
    for field in before | after:
        if field != "experts":
            yield from _value(field, before.get(field), after.get(field))
    if isinstance(one, GateMetadata) and isinstance(other, GateMetadata):
        yield from _experts(one, other)
        yield from _rows(one, first, other, second)
    else:
        yield from _tensors(first, second)


def _open(path: Path) -> tuple[Metadata, Container]:
    text, file = open_artifact(path, None)
    if is_golden(text):
        raise Refused(f"{path} is a golden set; experts and gates can be compared")
    return read_metadata(path), file


def _value(what: str, a: object, b: object) -> Iterator[str]:
    if a != b:
        yield f"{what}: {a} -> {b}"


def _experts(a: GateMetadata, b: GateMetadata) -> Iterator[str]:
    for sign, one, other in (("-", a, b), ("+", b, a)):
        if gone := [expert for expert in one.experts if expert not in other.experts]:
            yield f"experts: {sign} {', '.join(gone)}"
    both = [[e for e in one.experts if e in other.experts] for one, other in ((a, b), (b, a))]
    if both[0] != both[1]:
        yield f"order of experts: {', '.join(a.experts)} -> {', '.join(b.experts)}"


def _rows(a: GateMetadata, first: Container, b: GateMetadata, second: Container) -> Iterator[str]:
    """Compare gates row by row, by expert, whatever the order, in all that both have learned."""
    if a.hidden_size != b.hidden_size:
        return
    shared = [expert for expert in a.experts if expert in b.experts]
    for tensor in (tensor for tensor in a.shapes if tensor in b.shapes):
        _, layer, part = tensor.split(".")
        one, other = first.array(tensor), second.array(tensor)
        changed = {
            expert: change
            for expert in shared
            if (change := _relative(one[a.experts.index(expert)], other[b.experts.index(expert)]))
        }
        if changed:
            rows = ", ".join(f"{expert} {change:.2%}" for expert, change in changed.items())
            yield f"layer {layer}: {'rows' if part == WEIGHT else part} of {rows}"


def _tensors(a: Container, b: Container) -> Iterator[str]:
    shapes = [{name: list(e.shape) for name, e in file.header.entries.items()} for file in (a, b)]
    for name in shapes[0] | shapes[1]:
        one, other = shapes[0].get(name), shapes[1].get(name)
        if one != other:
            yield f"{name}: {one or 'missing'} -> {other or 'missing'}"
        elif change := _relative(a.array(name), b.array(name)):
            yield f"{name}: {change:.2%}"


def _relative(a: Array, b: Array) -> float:
    """Return |b - a| / |a| in float64; infinite where a is 0 and b is not."""
    one, other = a.astype(np.float64), b.astype(np.float64)
    difference, norm = float(np.linalg.norm(other - one)), float(np.linalg.norm(one))
    if np.array_equal(one, other, equal_nan=True):
        return 0.0
    return difference / norm if norm else float("inf")
