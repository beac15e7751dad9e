"""What is to be done for one mixture, as data; `apply` carries it out in the order of the fields.

Doing all of it twice has the effect of doing it once, and being killed between any two writes
loses nothing: the next plan, made from what is then observed, asks for the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from moe_core.table import Table
from moe_operator.scaling import Size
from moe_operator.world import Revision, Snapshot


@dataclass(frozen=True, slots=True)
class Manifest:
    """A child object to create or bring to this state by server-side apply."""

    body: Mapping[str, Any]
    hash: str  # of the body; an object that already carries it is not written


@dataclass(frozen=True, slots=True)
class Delete:
    """An object to delete, only as it was seen: uid and resourceVersion are preconditions."""

    kind: str
    name: str
    uid: str
    resource_version: str


@dataclass(frozen=True, slots=True)
class Status:
    """The whole `status` of one object; written only where it differs."""

    kind: str
    name: str
    status: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Note:
    """A Kubernetes Event: something a person may want to read later."""

    kind: str
    name: str
    warning: bool
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Plan:
    """One pass over a mixture.

    1. `revisions` are created, so that what the table names can be made again; so are `snapshots`
       of what the stored table serves, before another one takes its place.
    2. `locks`: status.inUse of objects that the table is about to name, and status.history of
       what it is about to forget.
    3. `table` is written by compare-and-swap; on a conflict the rest waits for the next plan.
    4. `manifests` are applied, 5. `deletes` carried out, 6. `statuses` written, 7. `notes` told.
    8. `pods` are created, last: where one is refused, nothing else waits for it.
    `again_at` is when to plan again without an event, `sizes` what the load of Experts decides on,
    by name: whom to listen for until then.
    """

    revisions: tuple[Revision, ...] = ()
    snapshots: tuple[Snapshot, ...] = ()
    locks: tuple[Status, ...] = ()
    table: Table | None = None
    manifests: tuple[Manifest, ...] = ()
    deletes: tuple[Delete, ...] = ()
    statuses: tuple[Status, ...] = ()
    notes: tuple[Note, ...] = ()
    pods: tuple[Manifest, ...] = ()
    again_at: datetime | None = None
    sizes: Mapping[str, Size] = field(default_factory=dict)
