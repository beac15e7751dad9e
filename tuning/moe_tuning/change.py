"""Writes a change of topology as `moe split --base` writes one: what is new, and its manifests.

Nothing is ever deleted: what may go once the change is served is said in words. Torch-free.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from moe_artifacts.artifact import encode, sha256_of
from moe_artifacts.encoding import Array
from moe_artifacts.errors import BadCheckpoint
from moe_artifacts.index import FILE, Entry, Index, choose_version, load
from moe_artifacts.manifests import (
    Key,
    Manifest,
    expert_manifest,
    gate_manifest,
    to_yaml,
    with_settings,
)
from moe_artifacts.metadata import ExpertMetadata, GateMetadata, Metadata
from moe_artifacts.parts import GATE
from moe_artifacts.plan import MANIFESTS
from moe_artifacts.whole_files import write_whole
from moe_core.rows import Role
from moe_tuning.folder import Folder

Tensors = Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class NewExpert:
    """An expert's tensors, by their names in the artifact. `like` is whose settings it takes."""

    metadata: ExpertMetadata
    tensors: Tensors
    like: str
    role: Role = Role.ROUTED


@dataclass(frozen=True, slots=True)
class Change:
    """What differs from the folder: a gate (None: as it is), experts by id, ids not listed more.

    `backups` names for an expert another backup than it would have, "" for none. `together` are
    the experts whose new version and the new gate are accepted only with each other.
    """

    gate: tuple[GateMetadata, Tensors] | None
    experts: Mapping[str, NewExpert] = field(default_factory=dict)
    gone: tuple[str, ...] = ()
    backups: Mapping[str, str] = field(default_factory=dict)
    together: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Target:
    """Where a change is written, under which address it will be found, and how it is called."""

    out: Path
    uri_prefix: str
    version: str | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """The index that was written, what is new in it, and what a person should know."""

    index: Index
    new: tuple[Entry, ...]
    words: tuple[str, ...]


def write_change(folder: Folder, change: Change, target: Target) -> Written:
    """Write artifacts, manifests and index. Raises Refused, BadCheckpoint."""
    if target.out.resolve() == folder.path.resolve():
        raise BadCheckpoint(f"OUT is {target.out}, the folder that is changed; give another one")
    new = {
        name: _place(name, role, part, folder, target) for name, role, part in _new_parts(change)
    }
    index = _index(folder, change, new)
    settings = folder.settings()
    for name, entry in new.items():
        manifest = _manifest(index, entry, change, settings)
        write_whole(target.out / MANIFESTS / f"{name}.yaml", [to_yaml([manifest]).encode()])
    write_whole(target.out / FILE, [index.to_text().encode()])
    words = tuple(_words(index, change, new, settings))
    return Written(index, tuple(new.values()), words)


def _new_parts(change: Change) -> Iterator[tuple[str, Role | None, tuple[Metadata, Tensors]]]:
    for name, expert in change.experts.items():
        yield name, expert.role, (expert.metadata, expert.tensors)
    if change.gate is not None:
        yield GATE, None, change.gate


def _place(
    name: str, role: Role | None, part: tuple[Metadata, Tensors], folder: Folder, target: Target
) -> Entry:
    metadata, tensors = part
    lookup = tensors.__getitem__
    sha256 = sha256_of(metadata, lookup)
    earlier = load(target.out)
    there = earlier.entry(name) if earlier is not None else None
    version = choose_version(name, sha256, target.version, folder.index.entry(name), there)
    path = target.out / f"{name}-{sha256[:10]}.safetensors"
    write_whole(path, encode(metadata, lookup))
    return Entry(
        name=name,
        role=role,
        version=version,
        sha256=sha256,
        size=path.stat().st_size,
        uri=f"{target.uri_prefix}/{path.name}",
        layers=metadata.layers,
        file=path.name,
    )


def _index(folder: Folder, change: Change, new: Mapping[str, Entry]) -> Index:
    """Return the index of all parts: listed experts in the order of the gate's rows first."""
    known = {e.name: e.elsewhere() for e in folder.index.entries if e.name not in change.gone}
    known |= new
    listed = change.gate[0].experts if change.gate is not None else folder.gate().metadata.experts
    rest = [name for name in known if name not in listed and name != GATE]
    order = [*listed, *rest, GATE]
    return replace(folder.index, entries=tuple(known[name] for name in order))


def _manifest(
    index: Index, entry: Entry, change: Change, settings: Mapping[Key, Manifest]
) -> Manifest:
    if change.gate is not None and entry.name == GATE:
        manifest = gate_manifest(index, entry, change.gate[0])
        manifest["spec"]["experts"] = list(_accepted(index, change, manifest, settings))
        return with_settings(manifest, settings)
    manifest = expert_manifest(index, entry, None)
    like = ("Expert", f"{index.mixture}-{change.experts[entry.name].like}")
    own = (manifest["kind"], manifest["metadata"]["name"])
    made = with_settings(manifest, {own: settings[like]} if like in settings else {})
    if entry.name in change.backups:
        made["spec"].pop("backupExpertId", None)
        if backup := change.backups[entry.name]:
            made["spec"]["backupExpertId"] = backup
    return made


def _accepted(
    index: Index, change: Change, manifest: Manifest, settings: Mapping[Key, Manifest]
) -> Iterator[Manifest]:
    """Give the gate's experts with the versions that fit: as before, or the new one alone."""
    before = settings.get(("Gate", manifest["metadata"]["name"]), {}).get("spec", {})
    versions = {e["id"]: e.get("versions") for e in before.get("experts", ())}
    for item in manifest["spec"]["experts"]:
        expert = item["id"]
        entry = index.entry(expert)
        if expert in change.together and entry is not None:
            yield {"id": expert, "versions": [entry.version]}
        elif versions.get(expert) and expert not in change.experts:
            yield {"id": expert, "versions": versions[expert]}
        else:
            yield {"id": expert}


def _words(
    index: Index, change: Change, new: Mapping[str, Entry], settings: Mapping[Key, Manifest]
) -> Iterator[str]:
    """Say what a person should do or know that no manifest can."""
    prefix = f"{index.mixture}-"
    for expert in change.gone:
        yield (
            f"nothing is deleted: when gate {new[GATE].version} is promoted for good, "
            f"kubectl delete expert {prefix}{expert}; until then the way back is the old gate"
        )
    for (kind, name), body in settings.items():
        backup = body.get("spec", {}).get("backupExpertId")
        stays = kind == "Expert" and name.removeprefix(prefix) not in change.gone
        if stays and backup in change.gone and name.removeprefix(prefix) not in change.experts:
            yield f"{name} names {backup} as its backup: give it another before {backup} goes"
    for expert in change.together:
        yield (
            f"{expert} {new[expert].version} and gate {new[GATE].version} belong together: where "
            f"the gate that is served names no versions of {expert}, the new one is tried out "
            "under it first"
        )
