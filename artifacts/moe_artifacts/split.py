"""Cuts a checkpoint into artifacts and the manifests that serve them, by a plan.

`parts → digests → versions → files → trunk → manifests → index`, in this order, so that an index
never names what is not there. What is there and right already is kept; run again, it does nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from moe_artifacts.artifact import encode, sha256_of_file
from moe_artifacts.errors import BadCheckpoint
from moe_artifacts.index import FILE, Entry, Index, choose_version
from moe_artifacts.manifests import (
    Manifest,
    expert_manifest,
    gate_manifest,
    mixture_manifest,
    to_yaml,
    with_settings,
)
from moe_artifacts.metadata import GateMetadata
from moe_artifacts.parts import GATE, Part
from moe_artifacts.plan import MANIFESTS, Plan
from moe_artifacts.trunk import trunk_sha256
from moe_artifacts.trunk_folder import FOLDER, write_trunk
from moe_artifacts.whole_files import write_whole

OnBytes = Callable[[int], None]


class Fate(StrEnum):
    """What became of a part's file."""

    WRITTEN = "written"
    KEPT = "there already"
    UNCHANGED = "as in base"


@dataclass(frozen=True, slots=True)
class Summary:
    """What was done: the index that was written, each part's fate, the manifests written."""

    index: Index
    fates: Mapping[str, Fate]
    manifests: tuple[Path, ...]


def split(plan: Plan, on_bytes: OnBytes) -> Summary:
    """Carry the plan out; `on_bytes` is told what was read. May be stopped and run again.

    Raises BadCheckpoint, BadArtifact, Refused.
    """
    trunk = trunk_sha256(plan.checkpoint.trunk(), on_bytes)
    placed = {part.name: _place(part, plan, on_bytes) for part in plan.chosen}
    entries = {entry.name: entry for entry in plan.carried}
    entries |= {name: entry for name, (entry, _) in placed.items()}
    order = [part.name for part in plan.parts]
    index = Index(
        mixture=plan.request.mixture,
        hidden_size=plan.checkpoint.architecture.hidden_size,
        layers=plan.checkpoint.architecture.layers,
        dtype=plan.dtype,
        trunk_sha256=trunk,
        entries=tuple(sorted(entries.values(), key=lambda e: _rank(e.name, order))),
        trunk_uri=_place_trunk(plan, trunk, entries[GATE], on_bytes),
    )
    fates = {name: fate for name, (_, fate) in placed.items()}
    written = tuple(_write_manifests(plan, index, fates))
    write_whole(plan.request.out / FILE, [index.to_text().encode()])
    return Summary(index, fates, written)


def _rank(name: str, order: list[str]) -> int:
    """Experts as in the gate, what was carried from the base beside them before the gate."""
    return order.index(name) if name in order else len(order) - 1


def _place(part: Part, plan: Plan, on_bytes: OnBytes) -> tuple[Entry, Fate]:
    """Give a part its digest and version, and its file if it is new."""
    request = plan.request
    digest = _digest(part, on_bytes)
    before = plan.base and plan.base.entry(part.name)
    if before and before.sha256 == digest:
        on_bytes(part.size)
        return before if request.in_place else before.elsewhere(), Fate.UNCHANGED
    there = plan.earlier and plan.earlier.entry(part.name)
    version = choose_version(part.name, digest, request.version, before or None, there or None)
    file = f"{part.name}-{digest[:10]}.safetensors"
    fate, size = _write(request.out / file, part, digest, on_bytes)
    entry = Entry(
        name=part.name,
        role=part.role,
        version=version,
        sha256=digest,
        size=size,
        uri=f"{request.uri_prefix}/{file}",
        layers=part.metadata.layers,
        file=file,
    )
    return entry, fate


def _place_trunk(plan: Plan, sha256: str, gate: Entry, on_bytes: OnBytes) -> str:
    """Give the trunk its folder unless the base has it, with the same gate; return its uri."""
    base = plan.base
    before = base.entry(GATE) if base is not None else None
    now = (sha256, gate.sha256)
    if base and before and base.trunk_uri and (base.trunk_sha256, before.sha256) == now:
        on_bytes(plan.trunk_bytes)
        return base.trunk_uri
    write_trunk(plan.request.out / FOLDER, plan.checkpoint, on_bytes)
    return f"{plan.request.uri_prefix}/{FOLDER}"


def _digest(part: Part, on_bytes: OnBytes) -> str:
    digest = hashlib.sha256()
    for piece in encode(part.metadata, part.lookup):
        digest.update(piece)
        on_bytes(len(piece))
    return digest.hexdigest()


def _write(path: Path, part: Part, sha256: str, on_bytes: OnBytes) -> tuple[Fate, int]:
    """Write the part's file unless it is there with this digest; return its fate and bytes."""
    if path.exists() and sha256_of_file(path) == sha256:
        on_bytes(part.size)
        return Fate.KEPT, path.stat().st_size

    def pieces() -> Iterator[bytes | memoryview]:
        digest = hashlib.sha256()
        for piece in encode(part.metadata, part.lookup):
            digest.update(piece)
            yield piece
            on_bytes(len(piece))
        if digest.hexdigest() != sha256:
            raise BadCheckpoint(f"the checkpoint's {part.name} changed while it was read")

    write_whole(path, pieces())
    return Fate.WRITTEN, path.stat().st_size


def _write_manifests(plan: Plan, index: Index, fates: Mapping[str, Fate]) -> Iterator[Path]:
    """Write one YAML file for each object that is new, with what people set for it."""
    for name, manifest in _manifests(plan, index, fates):
        path = plan.request.out / MANIFESTS / f"{name}.yaml"
        text = to_yaml([with_settings(manifest, plan.settings)])
        write_whole(path, [text.encode()])
        yield path


def _manifests(
    plan: Plan, index: Index, fates: Mapping[str, Fate]
) -> Iterator[tuple[str, Manifest]]:
    trunk = (index.trunk_sha256, index.trunk_uri)
    if plan.base is None or (plan.base.trunk_sha256, plan.base.trunk_uri) != trunk:
        yield "mixture", mixture_manifest(index)
    for part in plan.chosen:
        entry = index.entry(part.name)
        if entry is None or fates[part.name] is Fate.UNCHANGED:
            continue
        if isinstance(part.metadata, GateMetadata):
            yield part.name, gate_manifest(index, entry, part.metadata)
        else:
            yield part.name, expert_manifest(index, entry, plan.request.replicas)
