"""Which epochs of a mixture are kept, so that they can be brought back, and which of them may go.

An epoch is worth keeping where the stable version of an expert or a gate differs from the epoch
kept before it. What is kept is what the stored table says, written before another table takes its
place: so it was served, and is never lost, and two operators keep the same.
"""

from __future__ import annotations

from collections.abc import Iterable

from moe_core.rows import GateRow
from moe_core.table import Table
from moe_operator.intent import Delete
from moe_operator.override_spec import OverrideSpec
from moe_operator.snapshots import name_of
from moe_operator.world import Snapshot


def unkept(table: Table | None, snapshots: Iterable[Snapshot]) -> tuple[Snapshot, ...]:
    """Return the snapshot of the stored table, where it is to be made.

    A table without gates served nobody.
    """
    if table is None or not table.gates:
        return ()
    now = Snapshot(
        epoch=table.epoch,
        experts={row.name: row.stable for row in table.experts if row.stable is not None},
        gates=tuple(GateRow(row.name, row.layers, row.stable) for row in table.gates),
        name=name_of(table.mixture, table.epoch),
    )
    earlier = [kept for kept in snapshots if kept.epoch <= table.epoch]
    newest = max(earlier, key=lambda kept: kept.epoch, default=None)
    if newest is not None and (newest.epoch == table.epoch or same(newest, now)):
        return ()
    return (now,)


def same(one: Snapshot, other: Snapshot) -> bool:
    """Return whether two epochs serve the same."""
    return (one.experts, one.gates) == (other.experts, other.gates)


def next_epoch(table: Table | None, snapshots: Iterable[Snapshot]) -> int:
    """Return the epoch of the next table: past every one that is kept, also where a table was lost.

    So the number of an epoch means one thing for as long as its mixture is there.
    """
    stored = 0 if table is None else table.epoch
    return 1 + max((kept.epoch for kept in snapshots if kept.epoch > stored), default=stored)


def forgotten(
    snapshots: Iterable[Snapshot], limit: int, overrides: Iterable[OverrideSpec]
) -> tuple[Delete, ...]:
    """Return the snapshots that may go: all but the newest `limit`, and what an Override names."""
    named = {override.epoch for override in overrides}
    newest_first = sorted(snapshots, key=lambda kept: kept.epoch, reverse=True)
    return tuple(
        Delete("ControllerRevision", kept.name, kept.uid, kept.resource_version)
        for kept in newest_first[limit:]
        if kept.epoch not in named
    )
