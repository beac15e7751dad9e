"""A mixture's table as objects of the API server: a RoutingTable, or the head and its parts.

How it is read, what is to be written, and which parts may go; `moe_core.parts` says how it is
split. Parts are ControllerRevisions, which the API server lets nobody change, and have no owner,
as the table has none. It reads and writes nothing itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from moe_core.document import InvalidDocument
from moe_core.parts import (
    MissingPart,
    Part,
    head_of,
    named_by,
    part_name,
    split,
    table_of,
    wants_parts,
)
from moe_core.table import Table
from moe_operator import labels
from moe_operator.cache import Key, uid
from moe_operator.intent import Delete
from moe_operator.kinds import (
    CONTROLLER_REVISION,
    ROUTING_TABLE,
    Body,
    labels_of,
    metadata,
    spec_of,
)
from moe_operator.world import PartSeen, StoredTable, World


class BrokenTable(RuntimeError):
    """The routing table cannot be read: nothing is decided until a person has looked at it."""


@dataclass(frozen=True, slots=True)
class Writing:
    """The objects that a table is written as: the parts first, those that are there already too.

    `table` is without what fences it.
    """

    parts: tuple[Body, ...]
    table: Body


def is_part(body: Body) -> bool:
    """Return whether a ControllerRevision is a part of a table."""
    return labels.PART in labels_of(body)


def part_seen(body: Body) -> PartSeen:
    """Read a part. Raises InvalidDocument."""
    meta = metadata(body)
    part = Part.from_data(body.get("data"))
    return PartSeen(part, str(meta["name"]), uid(body), str(meta["resourceVersion"]))


def stored_table(body: Body, find: Callable[[str], PartSeen | None]) -> StoredTable:
    """Read a RoutingTable, whose parts `find` gives by their sha256. Raises BrokenTable."""

    def part(sha256: str) -> Part | None:
        seen = find(sha256)
        return None if seen is None else seen.part

    meta, wrong = metadata(body), f"RoutingTable {metadata(body).get('name')} cannot be read: "
    try:
        table = table_of(body, part)
        named = named_by(spec_of(body))
    except InvalidDocument as error:
        raise BrokenTable(f"{wrong}{error}") from None
    except MissingPart as error:
        name = part_name(str(meta["name"]), str(error))
        raise BrokenTable(f"{wrong}its part {name} is not there") from None
    return StoredTable(table, str(meta["resourceVersion"]), named)


def writing(world: World, table: Table, largest: int) -> Writing:
    """Return what a new table is written as: in one piece up to so many bytes."""
    named = () if world.table is None else world.table.parts
    spec, parts = table.to_spec(), tuple[Part, ...]()
    if wants_parts(spec, split=bool(named), largest=largest):
        parts = split(spec, (seen.part for seen in world.parts if seen.part.sha256 in named))
        spec = head_of(spec, parts)
    key = Key(world.namespace, world.name)
    return Writing(tuple(_part(part, key) for part in parts), _table(spec, key))


def dropped(world: World, released: bool) -> tuple[Delete, ...]:
    """Return the parts that may go; `released` says that every router has the stored table.

    No later head names what the stored one does not, unless it is made for a later epoch. So
    they can go on whatever old view this is decided.
    """
    if world.table is None or not released:
        return ()
    named, epoch = frozenset(world.table.parts), world.table.table.epoch
    return tuple(
        delete(seen)
        for seen in world.parts
        if seen.part.sha256 not in named and seen.part.epoch <= epoch
    )


def delete(seen: PartSeen) -> Delete:
    return Delete(CONTROLLER_REVISION.name, seen.name, seen.uid, seen.resource_version)


def _part(part: Part, key: Key) -> dict[str, Any]:
    own = {**labels.common(), labels.MIXTURE: key.mixture, labels.PART: str(part.bucket)}
    return {
        "apiVersion": CONTROLLER_REVISION.api_version,
        "kind": CONTROLLER_REVISION.name,
        "metadata": {
            "name": part_name(key.mixture, part.sha256),
            "namespace": key.namespace,
            "labels": own,
        },
        "revision": part.epoch,
        "data": part.to_data(),
    }


def _table(spec: dict[str, Any], key: Key) -> dict[str, Any]:
    return {
        "apiVersion": ROUTING_TABLE.api_version,
        "kind": ROUTING_TABLE.name,
        "metadata": {
            "name": key.mixture,
            "namespace": key.namespace,
            "labels": {labels.MIXTURE: key.mixture},
        },
        "spec": spec,
    }
