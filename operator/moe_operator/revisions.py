"""A version of an expert as a ControllerRevision: how it is written and read.

Immutable once written. What it holds is enough to make the version's pods again, whatever the
operator that does so would render today.
"""

from __future__ import annotations

from typing import Any

from moe_core.document import InvalidDocument, Reader
from moe_core.table import Version
from moe_operator import labels
from moe_operator.cache import Key, uid
from moe_operator.kinds import (
    CONTROLLER_REVISION,
    EXPERT,
    Body,
    labels_of,
    metadata,
)
from moe_operator.world import Revision


def name_of(revision: Revision) -> str:
    return revision.name or f"{revision.expert}-{revision.number}"


def to_body(revision: Revision, key: Key, owner: Body) -> dict[str, Any]:
    """Return the ControllerRevision object, owned by its Expert."""
    own = {
        **labels.common(),
        labels.MIXTURE: key.mixture,
        labels.EXPERT: revision.expert,
    }
    reference = {
        "apiVersion": EXPERT.api_version,
        "kind": EXPERT.name,
        "name": revision.expert,
        "uid": uid(owner),
        "controller": True,
    }
    return {
        "apiVersion": CONTROLLER_REVISION.api_version,
        "kind": CONTROLLER_REVISION.name,
        "metadata": {
            "name": name_of(revision),
            "namespace": key.namespace,
            "labels": own,
            "ownerReferences": [reference],
        },
        "revision": revision.number,
        "data": {"version": revision.version.to_dict(), "template": revision.template},
    }


def from_body(body: Body) -> Revision:
    """Read a ControllerRevision of ours. Raises InvalidDocument."""
    data = Reader(body.get("data"), "data")
    number = body.get("revision")
    if not isinstance(number, int):
        raise InvalidDocument(f"revision is {number!r}; it must be a whole number")
    return Revision(
        expert=labels_of(body).get(labels.EXPERT, ""),
        number=number,
        version=Version.read(data.child("version")),
        template=data.child("template").value,
        name=str(metadata(body).get("name", "")),
        uid=uid(body),
        resource_version=str(metadata(body).get("resourceVersion", "")),
        created=str(metadata(body).get("creationTimestamp", "")),
    )
