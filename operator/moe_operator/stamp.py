"""Marks the pods of a version that a table is about to name again, before it is written.

A deletion of them that was decided on before then meets a Conflict.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from moe_core.table import Table
from moe_operator.basis import Basis
from moe_operator.beside import all_of
from moe_operator.cluster import Conflict, Lister, Writer
from moe_operator.kinds import DEPLOYMENT
from moe_operator.labels import short
from moe_operator.observe import STAMPED_EPOCH, deployment_seen
from moe_operator.world import DeploymentSeen, World

_TRIES: Final = 4  # of a stamp that only a status is in the way of


async def stamp(writer: Writer, lister: Lister, basis: Basis, world: World, table: Table) -> None:
    """Stamp the Deployments of versions that `table` names and the stored one does not.

    Raises ApiError; Conflict: plan again.
    """
    before = _named(world.table.table) if world.table is not None else frozenset()
    again = _named(table) - before

    def named_again(seen: DeploymentSeen) -> bool:
        return any(seen.expert == e and short(s) == seen.digest for e, s in again)

    await all_of(
        partial(_stamp_one, writer, lister, basis, seen, table.epoch)
        for seen in world.deployments
        if seen.stamped_epoch != table.epoch and named_again(seen)
    )


async def _stamp_one(
    writer: Writer, lister: Lister, basis: Basis, seen: DeploymentSeen, epoch: int
) -> None:
    """Stamp a Deployment, also when its status has changed since: while pods start it does."""
    namespace, version = basis.key.namespace, seen.resource_version
    for tries in range(1, _TRIES + 1):
        fenced = {"annotations": {STAMPED_EPOCH: str(epoch)}, "resourceVersion": version}
        try:
            done = writer.merge(DEPLOYMENT, namespace, seen.name, {"metadata": fenced})
            basis.put(DEPLOYMENT, await done)
            return
        except Conflict:
            now = deployment_seen(await lister.get(DEPLOYMENT, namespace, seen.name))
            if tries == _TRIES or not _only_status(seen, now):
                raise
            version = now.resource_version


def _named(table: Table) -> frozenset[tuple[str, str]]:
    """Return (name of the Expert, sha256) of every version that may get rows."""
    return frozenset((row.name, v.sha256) for row in table.experts for v in row.named)


def _only_status(one: DeploymentSeen, other: DeploymentSeen) -> bool:
    """Return whether nothing that a plan goes by to name a Deployment's version differs."""

    def rest(seen: DeploymentSeen) -> object:
        return (seen.uid, seen.expert, seen.digest, seen.replicas, seen.stamped_epoch)

    return rest(one) == rest(other)
