"""Carries out a plan, write by write, in an order that is safe to be killed in.

Doing it twice has the effect of doing it once: a status or a lock that is as it should be is not
written, and the plan asks only for children that differ. Every write carries what it was decided
on (resourceVersion, and uid for deletions), so that a plan made from an old view, or by a leader
that slept, meets a Conflict and nothing else. What the API server answers goes into the cache, so
that the next plan sees it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from moe_core.table import Table
from moe_operator import revisions, snapshots
from moe_operator.cache import Cache, Key, uid
from moe_operator.cluster import Conflict, Exists, NotFound, Refused, Writer
from moe_operator.intent import Delete, Manifest, Note, Plan, Status
from moe_operator.kinds import (
    CONTROLLER_REVISION,
    DEPLOYMENT,
    EXPERT,
    KINDS,
    MIXTURE,
    MIXTURE_LABEL,
    POD,
    ROUTING_TABLE,
    Body,
    Kind,
    metadata,
    status_of,
)
from moe_operator.labels import short
from moe_operator.notes import Notes
from moe_operator.observe import APPLIED_HASH, STAMPED_EPOCH
from moe_operator.world import DeploymentSeen, Revision, Snapshot, World

_log = logging.getLogger(__name__)

Child = tuple[str, str]  # kind and name

_AT_ONCE: Final = 8  # writes under way for one mixture
# A binding needs its role, and pods need their rights.
_ORDER: Final = (("ServiceAccount", "Role", "Service"), ("RoleBinding",), ("Deployment",))


@dataclass(frozen=True, slots=True)
class Apply:
    """Carries out plans for mixtures.

    `refused` remembers the children that the API server did not take, and its sentence, by kind
    and name: the next plan tells of them.
    """

    writer: Writer
    cache: Cache
    notes: Notes
    refused: dict[Key, dict[Child, str]] = field(default_factory=dict)

    async def __call__(self, key: Key, world: World, plan: Plan) -> None:
        """Carry out a plan that was made from `world`. Raises ApiError; Conflict: plan again.

        A child that is refused keeps nothing else from being done; it is raised in the end.
        """
        await _all(partial(self._create_revision, key, revision) for revision in plan.revisions)
        await _all(partial(self._keep, key, snapshot) for snapshot in plan.snapshots)
        await _all(partial(self._lock, key, lock) for lock in plan.locks)
        if plan.table is not None:
            await self._stamp(key, world, plan.table)
            await self._write_table(key, world, plan.table)
        refused = self.refused[key] = {}
        for kinds in _ORDER:
            await _all(
                partial(self._try, key, m, refused)
                for m in plan.manifests
                if m.body["kind"] in kinds
            )
        await _all(partial(self._delete, key, deletion) for deletion in plan.deletes)
        await _all(partial(self._write_status, key, status) for status in plan.statuses)
        for note in plan.notes:
            self.notes.tell(key.namespace, note)
        await _all(partial(self._create_pod, key, pod) for pod in plan.pods)
        for sentence in refused.values():
            raise Refused(sentence)

    async def _create_revision(self, key: Key, revision: Revision) -> None:
        owner = self.cache.get(EXPERT, key.namespace, revision.expert)
        if owner is None:
            raise Conflict(f"Expert {revision.expert} is gone")
        await self._remember(key, revisions.to_body(revision, key, owner))

    async def _keep(self, key: Key, snapshot: Snapshot) -> None:
        owner = self._seen(MIXTURE.name, key, key.mixture)
        await self._remember(key, snapshots.to_body(snapshot, key, owner))

    async def _remember(self, key: Key, body: Body) -> None:
        """Create a ControllerRevision, unless there is one of that name; it would be the same."""
        name = metadata(body)["name"]
        if self.cache.get(CONTROLLER_REVISION, key.namespace, name) is not None:
            return
        try:
            self.cache.put(CONTROLLER_REVISION, await self.writer.create(CONTROLLER_REVISION, body))
        except Exists as error:  # made a moment ago, and not yet seen
            raise Conflict(str(error)) from None

    async def _lock(self, key: Key, lock: Status) -> None:
        """Set fields of status, only as long as the object is the one that was seen."""
        seen = self._seen(lock.kind, key, lock.name)
        if _covers(status_of(seen), lock.status):
            return
        version = {"resourceVersion": metadata(seen)["resourceVersion"]}
        patch = {"metadata": version, "status": dict(lock.status)}
        await self._merge(KINDS[lock.kind], key, lock.name, patch, "status")

    async def _stamp(self, key: Key, world: World, table: Table) -> None:
        """Mark the pods of a version that the table is about to name again.

        A deletion that was decided on before then meets a Conflict.
        """
        before = _named(world.table.table) if world.table is not None else frozenset()
        again = _named(table) - before

        def named_again(seen: DeploymentSeen) -> bool:
            return any(seen.expert == e and short(s) == seen.digest for e, s in again)

        await _all(
            partial(self._stamp_one, key, seen, table.epoch)
            for seen in world.deployments
            if seen.stamped_epoch != table.epoch and named_again(seen)
        )

    async def _stamp_one(self, key: Key, seen: DeploymentSeen, epoch: int) -> None:
        stamp = {STAMPED_EPOCH: str(epoch)}
        fenced = {"annotations": stamp, "resourceVersion": seen.resource_version}
        await self._merge(DEPLOYMENT, key, seen.name, {"metadata": fenced})

    async def _write_table(self, key: Key, world: World, table: Table) -> None:
        meta: dict[str, Any] = {"name": key.mixture, "namespace": key.namespace}
        body: dict[str, Any] = {
            "apiVersion": ROUTING_TABLE.api_version,
            "kind": ROUTING_TABLE.name,
            "metadata": meta,
            "spec": table.to_spec(),
        }
        if world.table is None:
            meta["labels"] = {MIXTURE_LABEL: key.mixture}
            try:
                written = await self.writer.create(ROUTING_TABLE, body)
            except Exists as error:
                raise Conflict(str(error)) from None
        else:
            seen = self._seen(ROUTING_TABLE.name, key, key.mixture)
            body["metadata"] = {**metadata(seen), "resourceVersion": world.table.resource_version}
            written = await self.writer.replace(ROUTING_TABLE, body)
        self.cache.put(ROUTING_TABLE, written)
        _log.info("table written mixture=%s epoch=%d", key, table.epoch)

    async def _try(self, key: Key, manifest: Manifest, refused: dict[Child, str]) -> None:
        try:
            await self._apply(key, manifest)
        except Refused as error:
            refused[manifest.body["kind"], manifest.body["metadata"]["name"]] = str(error)

    async def _apply(self, key: Key, manifest: Manifest) -> None:
        kind = KINDS[manifest.body["kind"]]
        meta = manifest.body["metadata"]
        seen = self.cache.get(kind, key.namespace, meta["name"])
        marked = {
            **meta,
            "namespace": key.namespace,
            "annotations": {**meta.get("annotations", {}), APPLIED_HASH: manifest.hash},
        }
        if seen is not None:
            marked |= {"uid": uid(seen), "resourceVersion": metadata(seen)["resourceVersion"]}
        written = await self.writer.apply(kind, {**manifest.body, "metadata": marked})
        self.cache.put(kind, written)
        _log.info("applied mixture=%s kind=%s name=%s", key, kind.name, meta["name"])

    async def _create_pod(self, key: Key, manifest: Manifest) -> None:
        """Make an evaluator; that it is refused, by a quota or a policy, is told to people."""
        meta = manifest.body["metadata"]
        if self.cache.get(POD, key.namespace, meta["name"]) is not None:
            return
        body = {**manifest.body, "metadata": {**meta, "namespace": key.namespace}}
        try:
            self.cache.put(POD, await self.writer.create(POD, body))
        except Exists as error:  # made a moment ago, or not yet gone
            raise Conflict(str(error)) from None
        except Refused as error:
            (owner,) = meta["ownerReferences"]
            note = Note(owner["kind"], owner["name"], True, "EvaluatorRefused", str(error))
            self.notes.tell(key.namespace, note)
            raise
        _log.info("evaluator made mixture=%s name=%s", key, meta["name"])

    async def _delete(self, key: Key, deletion: Delete) -> None:
        kind = KINDS[deletion.kind]
        body: Body = {
            "metadata": {
                "namespace": key.namespace,
                "name": deletion.name,
                "uid": deletion.uid,
                "resourceVersion": deletion.resource_version,
            }
        }
        with contextlib.suppress(NotFound):
            await self.writer.delete(kind, body)
        self.cache.remove(kind, body)
        _log.info("deleted mixture=%s kind=%s name=%s", key, kind.name, deletion.name)

    async def _write_status(self, key: Key, status: Status) -> None:
        seen = self.cache.get(KINDS[status.kind], key.namespace, status.name)
        if seen is None:
            return
        patch = difference(status_of(seen), status.status)
        if patch:
            try:
                await self._merge(KINDS[status.kind], key, status.name, {"status": patch}, "status")
            except NotFound:
                _log.debug("%s %s is gone", status.kind, status.name)

    async def _merge(
        self, kind: Kind, key: Key, name: str, patch: Mapping[str, Any], subresource: str = ""
    ) -> None:
        self.cache.put(kind, await self.writer.merge(kind, key.namespace, name, patch, subresource))

    def _seen(self, kind_name: str, key: Key, name: str) -> Body:
        seen = self.cache.get(KINDS[kind_name], key.namespace, name)
        if seen is None:
            raise Conflict(f"{kind_name} {name} is gone")
        return seen


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Return the merge patch that makes `old` into `new`; empty where they are equal."""
    patch: dict[str, Any] = {name: None for name in old if name not in new}
    for name, value in new.items():
        before = old.get(name)
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            inner = difference(before, value)
            if inner:
                patch[name] = inner
        elif before != value or name not in old:
            patch[name] = value
    return patch


def _covers(status: Mapping[str, Any], fields: Mapping[str, Any]) -> bool:
    return all(status.get(name) == value for name, value in fields.items())


def _named(table: Table) -> frozenset[tuple[str, str]]:
    """Return (name of the Expert, sha256) of every version that may get rows."""
    return frozenset((row.name, v.sha256) for row in table.experts for v in row.named)


async def _all(writes: Iterable[Callable[[], Awaitable[None]]]) -> None:
    """Do writes beside each other, all of them, and raise the first error."""
    limit = asyncio.Semaphore(_AT_ONCE)

    async def one(write: Callable[[], Awaitable[None]]) -> None:
        async with limit:
            await write()

    done = await asyncio.gather(*map(one, writes), return_exceptions=True)
    for error in done:
        if isinstance(error, BaseException):
            raise error
