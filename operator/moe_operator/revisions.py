"""A version of an expert or a gate as a ControllerRevision: how it is written and read.

Immutable once written. What it holds is enough to make the version's pods again, whatever the
operator that does so would render today.
"""

from __future__ import annotations

from typing import Any, Final

from moe_core.document import InvalidDocument, Reader
from moe_core.rollout import Version
from moe_operator import labels
from moe_operator.cache import Key, uid
from moe_operator.kinds import (
    CONTROLLER_REVISION,
    EXPERT,
    GATE,
    Body,
    labels_of,
    metadata,
)
from moe_operator.spec import Tried
from moe_operator.world import Revision

_LABELS: Final = {Tried.EXPERT: labels.EXPERT, Tried.GATE: labels.GATE}
_KINDS: Final = {Tried.EXPERT: EXPERT, Tried.GATE: GATE}


def name_of(kind: Tried, name: str, number: int) -> str:
    """Return the name of a revision; those of an Expert and a Gate of one name differ."""
    return f"{name}-{number}" if kind is Tried.EXPERT else f"{name}.gate-{number}"


def to_body(revision: Revision, key: Key, owner: Body) -> dict[str, Any]:
    """Return the ControllerRevision object, owned by its Expert or Gate."""
    kind = _KINDS[revision.kind]
    own = {
        **labels.common(),
        labels.MIXTURE: key.mixture,
        _LABELS[revision.kind]: revision.expert,
    }
    reference = {
        "apiVersion": kind.api_version,
        "kind": kind.name,
        "name": revision.expert,
        "uid": uid(owner),
        "controller": True,
    }
    return {
        "apiVersion": CONTROLLER_REVISION.api_version,
        "kind": CONTROLLER_REVISION.name,
        "metadata": {
            "name": revision.name,
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
    own = labels_of(body)
    kind = Tried.GATE if labels.GATE in own else Tried.EXPERT
    return Revision(
        expert=own.get(_LABELS[kind], ""),
        number=number,
        version=Version.read(data.child("version")),
        template=data.child("template").value,
        name=str(metadata(body).get("name", "")),
        uid=uid(body),
        resource_version=str(metadata(body).get("resourceVersion", "")),
        created=str(metadata(body).get("creationTimestamp", "")),
        kind=kind,
    )
