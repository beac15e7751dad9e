"""The stable versions of an epoch as a ControllerRevision: how it is written and read.

Owned by the Mixture, and immutable once written. No name is also that of an expert's revision:
those end in a hyphen and digits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from moe_core.document import InvalidDocument, Reader
from moe_core.rollout import Version
from moe_core.rows import GateRow
from moe_operator import labels
from moe_operator.cache import Key, uid
from moe_operator.kinds import CONTROLLER_REVISION, MIXTURE, Body, labels_of, metadata
from moe_operator.world import Snapshot


def name_of(mixture: str, epoch: int) -> str:
    return f"{mixture}.{epoch}"


def is_snapshot(body: Body) -> bool:
    """Return whether a ControllerRevision of a mixture is one of an epoch."""
    return not labels_of(body).keys() & {labels.EXPERT, labels.GATE, labels.PART}


def to_body(snapshot: Snapshot, key: Key, owner: Body) -> dict[str, Any]:
    """Return the ControllerRevision object, owned by its Mixture."""
    reference = {
        "apiVersion": MIXTURE.api_version,
        "kind": MIXTURE.name,
        "name": key.mixture,
        "uid": uid(owner),
        "controller": True,
    }
    return {
        "apiVersion": CONTROLLER_REVISION.api_version,
        "kind": CONTROLLER_REVISION.name,
        "metadata": {
            "name": snapshot.name,
            "namespace": key.namespace,
            "labels": {**labels.common(), labels.MIXTURE: key.mixture},
            "ownerReferences": [reference],
        },
        "revision": snapshot.epoch,
        "data": {
            "experts": {name: version.to_dict() for name, version in snapshot.experts.items()},
            "gates": [row.to_dict() for row in snapshot.gates],
        },
    }


def from_body(body: Body) -> Snapshot:
    """Read a ControllerRevision of an epoch. Raises InvalidDocument."""
    data = Reader(body.get("data"), "data")
    epoch = body.get("revision")
    if not isinstance(epoch, int):
        raise InvalidDocument(f"revision is {epoch!r}; it must be a whole number")
    return Snapshot(
        epoch=epoch,
        experts=_experts(data.child("experts")),
        gates=tuple(GateRow.read(item) for item in data.items("gates")),
        name=str(metadata(body).get("name", "")),
        uid=uid(body),
        resource_version=str(metadata(body).get("resourceVersion", "")),
    )


def _experts(reader: Reader) -> Mapping[str, Version]:
    return {name: Version.read(reader.child(name)) for name in sorted(reader.value)}
