"""An API server in memory: the operator's `Writer` and `Lister`, with the rules that fence writes.

It knows uids, resourceVersions, conflicts and preconditions. Of server-side apply it knows what
one manager needs: what is applied replaces what was applied before. Every write is recorded;
`refuse` lets the next matching write fail. What it hands out is what it holds: nobody may change
it in place, as nobody may in a cache.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from moe_operator.cluster import ApiError, Conflict, Exists, NotFound, Refused
from moe_operator.kinds import KINDS, Body, Kind, metadata

Object = dict[str, Any]
Place = tuple[Kind, str, str]


@dataclass(frozen=True, slots=True)
class Write:
    """One write that was accepted."""

    verb: str
    kind: str
    name: str
    body: Mapping[str, Any]


@dataclass(slots=True)
class KubeApi:
    """Objects by place, and what was written."""

    objects: dict[Place, Object] = field(default_factory=dict)
    writes: list[Write] = field(default_factory=list)
    refuse: list[tuple[str, str, ApiError]] = field(default_factory=list)  # verb, kind, error
    # Called after each accepted change: kind, type of the event, object.
    watchers: list[Callable[[Kind, str, Body], None]] = field(default_factory=list)
    version: int = 100
    uids: int = 0
    ending: set[str] = field(default_factory=set)  # namespaces in which nothing is created now
    # Names of the annotations that were applied last, by uid.
    annotated: dict[str, frozenset[str]] = field(default_factory=dict)

    async def create(self, kind: Kind, body: Body) -> Body:
        place = self._place(kind, body)
        self._may("create", kind)
        if place in self.objects:
            raise Exists(f"{kind.name} {place[2]} exists")
        self._must_not_end(place)
        return self._store("create", place, copied(body), body)

    async def replace(self, kind: Kind, body: Body) -> Body:
        place = self._place(kind, body)
        self._may("replace", kind)
        self._match(self._found(place), body)
        return self._store("replace", place, copied(body), body)

    async def apply(self, kind: Kind, body: Body) -> Body:
        place = self._place(kind, body)
        self._may("apply", kind)
        found = self.objects.get(place)
        applied = copied(body)
        if found is None:
            if "resourceVersion" in metadata(body):
                raise Conflict(f"{kind.name} {place[2]} is gone")
            self._must_not_end(place)
            return self._annotate(self._store("apply", place, applied, body), body)
        self._match(found, body)
        kept = {name: value for name, value in found.items() if name == "status"}
        before = self.annotated.get(metadata(found)["uid"], frozenset())
        others = (metadata(found).get("annotations") or {}).items()
        notes = {
            **{name: value for name, value in others if name not in before},
            **(metadata(body).get("annotations") or {}),
        }
        applied["metadata"] = {**metadata(found), **applied["metadata"], "annotations": notes}
        return self._annotate(self._store("apply", place, {**applied, **kept}, body), body)

    def _annotate(self, stored: Body, body: Body) -> Body:
        names = frozenset(metadata(body).get("annotations") or ())
        self.annotated[metadata(stored)["uid"]] = names
        return stored

    async def merge(
        self, kind: Kind, namespace: str, name: str, patch: Mapping[str, Any], subresource: str = ""
    ) -> Body:
        place = (kind, namespace, name)
        verb = f"merge {subresource}".strip()
        self._may(verb, kind)
        found = self._found(place)
        if "resourceVersion" in (patch.get("metadata") or {}):
            self._match(found, patch)
        return self._store(verb, place, _merged(found, copied(patch)), patch)

    async def delete(self, kind: Kind, body: Body) -> None:
        place = self._place(kind, body)
        self._may("delete", kind)
        self._match(self._found(place), body)
        self.writes.append(Write("delete", kind.name, place[2], body))
        self.remove(kind, place[1], place[2])

    async def get(self, kind: Kind, namespace: str, name: str) -> Body:
        return self._found((kind, namespace, name))

    async def list_all(
        self, kind: Kind, namespace: str | None, *, brief: bool
    ) -> tuple[list[Body], int]:
        self._may("list", kind)
        found: list[Body] = [
            {"metadata": body["metadata"]} if brief else body
            for place, body in self.objects.items()
            if place[0] == kind and namespace in (None, place[1])
        ]
        return found, self.version

    # What people, controllers and time do.
    def put(self, body: Mapping[str, Any]) -> Body:
        """Create or change an object as somebody else."""
        kind = KINDS[body["kind"]]
        place = self._place(kind, body)
        new = copied(body)
        old = self.objects.get(place)
        if old is not None:
            if kind.own and "status" in old:
                new.setdefault("status", old["status"])
            new["metadata"] = {**old["metadata"], **new["metadata"]}
        return self._store("", place, new, body)

    def remove(self, kind: Kind, namespace: str, name: str) -> None:
        """Delete an object as somebody else."""
        body = self.objects.pop((kind, namespace, name))
        self.version += 1
        gone = {**body, "metadata": {**body["metadata"], "resourceVersion": str(self.version)}}
        for watcher in self.watchers:
            watcher(kind, "DELETED", gone)

    def written(self, verb: str, kind: str = "") -> list[Write]:
        return [w for w in self.writes if w.verb == verb and kind in ("", w.kind)]

    def _store(self, verb: str, place: Place, new: Object, body: Body) -> Body:
        old = self.objects.get(place)
        if old is not None and _content(old) == _content(new):
            new = old
        else:
            self.version += 1
            self.uids += old is None
            meta = new["metadata"] = dict(new["metadata"])
            meta["uid"] = old["metadata"]["uid"] if old else f"uid-{self.uids}"
            meta["resourceVersion"] = str(self.version)
            meta.setdefault("creationTimestamp", "2026-01-01T00:00:00Z")
            if old is None or old.get("spec") != new.get("spec"):
                meta["generation"] = meta.get("generation", 0) + 1
            self.objects[place] = new
        if verb:
            self.writes.append(Write(verb, place[0].name, place[2], copied(body)))
        if new is not old:
            for watcher in self.watchers:
                watcher(place[0], "ADDED" if old is None else "MODIFIED", new)
        return new

    def _may(self, verb: str, kind: Kind) -> None:
        for rule in self.refuse:
            if rule[0] == verb and rule[1] == kind.name:
                self.refuse.remove(rule)
                raise rule[2]

    def _must_not_end(self, place: Place) -> None:
        if place[1] in self.ending:
            raise Refused(f"{place[2]} is forbidden: namespace {place[1]} is being terminated")

    def _found(self, place: Place) -> Object:
        if place not in self.objects:
            raise NotFound(f"{place[0].name} {place[2]} is not there")
        return self.objects[place]

    def _match(self, found: Body, body: Body) -> None:
        for name in ("uid", "resourceVersion"):
            seen = metadata(body).get(name)
            if seen is not None and seen != metadata(found)[name]:
                raise Conflict(f"{metadata(found)['name']}: {name} is {metadata(found)[name]}")

    def _place(self, kind: Kind, body: Body) -> Place:
        meta = metadata(body)
        return kind, str(meta.get("namespace", "default")), str(meta["name"])


def _content(body: Body) -> Object:
    volatile = ("resourceVersion", "generation", "uid", "creationTimestamp")
    meta = {k: v for k, v in metadata(body).items() if k not in volatile}
    return {**body, "metadata": meta}


def copied(value: Any) -> Any:
    """Return a copy of a JSON value, all the way down."""
    if isinstance(value, Mapping):
        return {name: copied(inner) for name, inner in value.items()}
    return [copied(inner) for inner in value] if isinstance(value, list) else value


def _merged(old: Any, patch: Any) -> Any:
    if not isinstance(patch, Mapping):
        return patch
    new = dict(old) if isinstance(old, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            new.pop(name, None)
        else:
            new[name] = _merged(new.get(name), value)
    return new
