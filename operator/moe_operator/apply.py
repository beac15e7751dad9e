"""Carries out a plan, write by write, in an order that is safe to be killed in.

Doing it twice has the effect of doing it once: a status or a lock that is as it should be is not
written, and the plan asks only for children that differ. Every change carries the resourceVersion
that it was decided on, and deletions also the uid, so that a plan made from an old view, or by a
leader that slept, meets a Conflict and nothing else. What the API server answers goes into the
cache, so that the next plan sees it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from logging import DEBUG
from typing import Any, Final

from moe_core.log import tell
from moe_core.parts import LARGEST_BYTES
from moe_core.table import Table
from moe_operator import journal, revisions, snapshots
from moe_operator.basis import Basis, Done
from moe_operator.beside import all_of
from moe_operator.cache import Cache, Key, uid
from moe_operator.cluster import Conflict, Exists, Lister, NotFound, Refused, Writer
from moe_operator.intent import Delete, Manifest, Note, Plan, Status
from moe_operator.kinds import (
    CONTROLLER_REVISION,
    EXPERT,
    KINDS,
    MIXTURE,
    POD,
    ROUTING_TABLE,
    Body,
    Kind,
    metadata,
    spec_of,
    status_of,
)
from moe_operator.notes import Notes
from moe_operator.observe import APPLIED_HASH
from moe_operator.overrides import State
from moe_operator.stamp import stamp
from moe_operator.world import Revision, Snapshot, World

Child = tuple[str, str]  # kind and name

# A binding needs its role, and pods need their rights.
_ORDER: Final = (
    ("ServiceAccount", "Role", "Service", "NetworkPolicy"),
    ("RoleBinding", "PodDisruptionBudget"),
    ("Deployment",),
)


@dataclass(frozen=True, slots=True)
class Apply:
    """Carries out plans for mixtures.

    `refused` remembers the children that the API server did not take, and its sentence, by kind
    and name: the next plan tells of them.
    """

    writer: Writer
    lister: Lister
    cache: Cache
    notes: Notes
    refused: dict[Key, dict[Child, str]] = field(default_factory=dict)
    largest_table: int = LARGEST_BYTES  # a larger one is written in parts
    done: Done = lambda key, body, gone: None  # told of each write, so that its event is no news

    async def __call__(self, key: Key, world: World, plan: Plan) -> None:
        """Carry out a plan that was made from `world`, which is what the cache knows now.

        Raises ApiError; Conflict: plan again. A child that is refused keeps nothing else from
        being done; it is raised in the end.
        """
        basis = Basis.of(self.cache, key, self.done)
        await all_of(partial(self._create_revision, basis, revision) for revision in plan.revisions)
        await all_of(partial(self._keep, basis, snapshot) for snapshot in plan.snapshots)
        await all_of(partial(self._lock, basis, lock) for lock in plan.locks)
        if plan.table is not None:
            await stamp(self.writer, self.lister, basis, world, plan.table)
            await self._write_table(basis, world, plan.table)
        refused = self.refused[key] = {}
        for kinds in _ORDER:
            await all_of(
                partial(self._try, basis, m, refused)
                for m in plan.manifests
                if m.body["kind"] in kinds
            )
        await all_of(partial(self._delete, basis, deletion) for deletion in plan.deletes)
        await all_of(partial(self._write_status, basis, status) for status in plan.statuses)
        for note in plan.notes:
            self.notes.tell(key.namespace, note)
        await all_of(partial(self._create_pod, basis, pod) for pod in plan.pods)
        for sentence in refused.values():
            raise Refused(sentence)

    async def _create_revision(self, basis: Basis, revision: Revision) -> None:
        owner = basis.seen(KINDS[revision.kind], revision.expert)
        await self._remember(basis, revisions.to_body(revision, basis.key, owner))

    async def _keep(self, basis: Basis, snapshot: Snapshot) -> None:
        owner = basis.seen(MIXTURE, basis.key.mixture)
        await self._remember(basis, snapshots.to_body(snapshot, basis.key, owner))

    async def _remember(self, basis: Basis, body: Body) -> None:
        """Create a ControllerRevision, unless there is one of that name; it would be the same."""
        if basis.get(CONTROLLER_REVISION, metadata(body)["name"]) is not None:
            return
        try:
            basis.put(CONTROLLER_REVISION, await self.writer.create(CONTROLLER_REVISION, body))
        except Exists as error:  # made a moment ago, and not yet seen
            raise Conflict(str(error)) from None

    async def _lock(self, basis: Basis, lock: Status) -> None:
        if not _covers(status_of(basis.seen(KINDS[lock.kind], lock.name)), lock.status):
            await self._merge(basis, lock, dict(lock.status))

    async def _write_table(self, basis: Basis, world: World, table: Table) -> None:
        key, writing = basis.key, journal.writing(world, table, self.largest_table)
        await all_of(partial(self._remember, basis, part) for part in writing.parts)
        if world.table is None:
            try:
                written = await self.writer.create(ROUTING_TABLE, writing.table)
            except Exists as error:
                raise Conflict(str(error)) from None
        else:
            seen = metadata(basis.seen(ROUTING_TABLE, key.mixture))
            meta = {**seen, "resourceVersion": world.table.resource_version}
            body = {**writing.table, "metadata": meta}
            written = await self.writer.replace(ROUTING_TABLE, body)
        basis.put(ROUTING_TABLE, written)
        tell("table_written", mixture=str(key), epoch=table.epoch)

    async def _try(self, basis: Basis, manifest: Manifest, refused: dict[Child, str]) -> None:
        try:
            await self._apply(basis, manifest)
        except Refused as error:
            refused[manifest.body["kind"], manifest.body["metadata"]["name"]] = str(error)

    async def _apply(self, basis: Basis, manifest: Manifest) -> None:
        kind = KINDS[manifest.body["kind"]]
        meta = manifest.body["metadata"]
        seen = basis.get(kind, meta["name"])
        marked = {
            **meta,
            "namespace": basis.key.namespace,
            "annotations": {**meta.get("annotations", {}), APPLIED_HASH: manifest.hash},
        }
        if seen is None:
            await self._must_be_new(basis, kind, meta["name"])
        else:
            marked |= {"uid": uid(seen), "resourceVersion": metadata(seen)["resourceVersion"]}
        basis.put(kind, await self.writer.apply(kind, {**manifest.body, "metadata": marked}))
        tell("applied", mixture=str(basis.key), kind=kind.name, name=meta["name"])

    async def _must_be_new(self, basis: Basis, kind: Kind, name: str) -> None:
        """Raise Conflict where an object is there that the plan has not seen.

        Server-side apply knows no precondition for what is not there.
        """
        with contextlib.suppress(NotFound):
            basis.put(kind, await self.lister.get(kind, basis.key.namespace, name))
            raise Conflict(f"{kind.name} {name} is there already")

    async def _create_pod(self, basis: Basis, manifest: Manifest) -> None:
        """Make an evaluator; that it is refused, by a quota or a policy, is told to people."""
        meta, namespace = manifest.body["metadata"], basis.key.namespace
        if basis.get(POD, meta["name"]) is not None:
            return
        body = {**manifest.body, "metadata": {**meta, "namespace": namespace}}
        try:
            basis.put(POD, await self.writer.create(POD, body))
        except Exists as error:  # made a moment ago, or not yet gone
            raise Conflict(str(error)) from None
        except Refused as error:
            (owner,) = meta["ownerReferences"]
            note = Note(owner["kind"], owner["name"], True, "EvaluatorRefused", str(error))
            self.notes.tell(namespace, note)
            raise
        tell("evaluator_made", mixture=str(basis.key), name=meta["name"])

    async def _delete(self, basis: Basis, deletion: Delete) -> None:
        kind = KINDS[deletion.kind]
        body: Body = {
            "metadata": {
                "namespace": basis.key.namespace,
                "name": deletion.name,
                "uid": deletion.uid,
                "resourceVersion": deletion.resource_version,
            }
        }
        with contextlib.suppress(NotFound):
            await self.writer.delete(kind, body)
        basis.remove(kind, body)
        tell("deleted", mixture=str(basis.key), kind=kind.name, name=deletion.name)

    async def _write_status(self, basis: Basis, status: Status) -> None:
        seen = basis.get(KINDS[status.kind], status.name)
        patch = {} if seen is None else difference(status_of(seen), status.status)
        if seen is not None and patch.get("state") == State.LAPSED:
            await self._must_be_newest(basis, spec_of(seen).get("targetRef", {}))
        if patch:
            try:
                await self._merge(basis, status, patch)
            except NotFound:
                tell("gone", level=DEBUG, kind=status.kind, name=status.name)

    async def _must_be_newest(self, basis: Basis, target: Mapping[str, str]) -> None:
        """Raise Conflict where an Override would lapse by an old view of what it is about.

        Who made it saw more than the plan then, and what has lapsed stays so.
        """
        kind, name = KINDS[target.get("kind", EXPERT.name)], target.get("name", "")
        for of, seen in ((ROUTING_TABLE, basis.key.mixture), (kind, name)):
            known = metadata(basis.get(of, seen) or {})
            with contextlib.suppress(NotFound):
                now = await self.lister.get(of, basis.key.namespace, seen)
                if known.get("resourceVersion") != metadata(now)["resourceVersion"]:
                    basis.put(of, now)
                    raise Conflict(f"{of.name} {seen} is not as it was seen")

    async def _merge(self, basis: Basis, status: Status, fields: Mapping[str, Any]) -> None:
        """Change fields of a status, only as long as the object is the one that was seen."""
        kind = KINDS[status.kind]
        version = metadata(basis.seen(kind, status.name))["resourceVersion"]
        patch = {"metadata": {"resourceVersion": version}, "status": fields}
        done = self.writer.merge(kind, basis.key.namespace, status.name, patch, "status")
        basis.put(kind, await done)


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
