"""The objects that make a cluster serve what an index lists: Mixture, Gate and Experts.

Pure. What `moe split` knows is written over the settings that people chose (backups, rollout
steps, pods, ...), which are taken from manifests given to it, by kind and name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from moe_artifacts.errors import BadCheckpoint
from moe_artifacts.index import Entry, Index
from moe_artifacts.metadata import GateMetadata
from moe_core.document import InvalidDocument, Reader

GROUP = "moeops.dev"
_VERSION = f"{GROUP}/v1alpha1"
MAX_NAME = 50

Manifest = dict[str, Any]
Key = tuple[str, str]
"""Kind and name."""


def object_name(index: Index, entry: Entry) -> str:
    return f"{index.mixture}-{entry.name}"


def mixture_manifest(index: Index) -> Manifest:
    spec = {
        "hiddenSize": index.hidden_size,
        "layers": index.layers,
        "dtype": index.dtype,
        "trunk": {"uri": index.trunk_uri, "sha256": index.trunk_sha256},
    }
    return _manifest("Mixture", index.mixture, spec)


def expert_manifest(index: Index, entry: Entry, replicas: int | None) -> Manifest:
    if entry.role is None:
        raise ValueError(f"{entry.name} is a gate")
    spec = {
        "mixtureRef": {"name": index.mixture},
        "expertId": entry.name,
        "role": entry.role.value,
        "layers": list(entry.layers),
        "version": entry.version,
        "artifact": {"uri": entry.uri, "sha256": entry.sha256},
        **({} if replicas is None else {"replicas": replicas}),
    }
    return _manifest("Expert", object_name(index, entry), spec)


def gate_manifest(index: Index, entry: Entry, metadata: GateMetadata) -> Manifest:
    spec = {
        "mixtureRef": {"name": index.mixture},
        "layers": list(entry.layers),
        "version": entry.version,
        "artifact": {"uri": entry.uri, "sha256": entry.sha256},
        "experts": [{"id": expert} for expert in metadata.experts],
        "policy": metadata.policy.to_dict(),
    }
    return _manifest("Gate", object_name(index, entry), spec)


def _manifest(kind: str, name: str, spec: Manifest) -> Manifest:
    if len(name) > MAX_NAME:
        raise BadCheckpoint(
            f"{kind} would be named {name!r}; a name has at most {MAX_NAME} characters, "
            "so give a shorter --mixture"
        )
    return {"apiVersion": _VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}


def read_settings(text: str, origin: str) -> Mapping[Key, Manifest]:
    """Return the moeops objects of a YAML file; other objects are not ours and are left out.

    Raises BadCheckpoint where it is no YAML, or an object of ours has no kind and name.
    """
    settings = {}
    try:
        for number, document in enumerate(yaml.safe_load_all(text)):
            if document is None:
                continue
            reader = Reader(document, f"{origin}[{number}]")
            if reader.text("apiVersion").startswith(f"{GROUP}/"):
                key = (reader.text("kind"), reader.child("metadata").text("name"))
                settings[key] = document
    except (yaml.YAMLError, InvalidDocument, RecursionError) as error:
        raise BadCheckpoint(f"{origin}: {error}") from None
    return settings


def with_settings(manifest: Manifest, settings: Mapping[Key, Manifest]) -> Manifest:
    """Return what people set for this object, with `manifest` written over it."""
    chosen = settings.get((manifest["kind"], manifest["metadata"]["name"]), {})
    kept = {name: chosen[name] for name in ("metadata", "spec") if name in chosen}
    merged: Manifest = _merge(kept, manifest)
    return {name: merged[name] for name in manifest}


def _merge(below: Any, above: Any) -> Any:
    if not isinstance(below, dict) or not isinstance(above, dict):
        return above
    merged = dict(above)
    for name, value in below.items():
        merged[name] = _merge(value, above[name]) if name in above else value
    return merged


def to_yaml(manifests: Iterable[Manifest]) -> str:
    """Return YAML documents in this order, keys in theirs; the same input gives the same text."""
    return yaml.safe_dump_all(manifests, sort_keys=False, default_flow_style=None, width=100)
