"""What the API server was last known to hold, by kind and by mixture.

Fed by watches, by the answers to the operator's own writes and by the sweep, in any order: the
newest resourceVersion wins, and an object that was deleted never comes back. Objects in it are
never changed in place. It decides nothing.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from dataclasses import dataclass
from typing import Final

from moe_operator.kinds import (
    EXPERT,
    GATE,
    OVERRIDE,
    Body,
    Kind,
    labels_of,
    metadata,
    mixture_of,
    spec_of,
    status_of,
    target_of,
)

_REMEMBERED_DELETIONS: Final = 20_000


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """A mixture: what is reconciled as one."""

    namespace: str
    mixture: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.mixture}"


Place = tuple[Kind, str, str]  # kind, namespace, name


def resource_version(body: Body) -> int:
    """Return an object's resourceVersion as a number: comparable since Kubernetes 1.35."""
    text = str(metadata(body).get("resourceVersion", ""))
    return int(text) if text.isdigit() else 0


def uid(body: Body) -> str:
    return str(metadata(body).get("uid", ""))


class Cache:
    """Objects by place, and the names of each mixture's objects by kind."""

    def __init__(self) -> None:
        self._bodies: dict[Place, Body] = {}
        self._keys: dict[Place, Key] = {}
        self._members: dict[Key, dict[Kind, set[str]]] = {}
        self._cluster: defaultdict[Kind, set[Place]] = defaultdict(set)
        self._overrides: defaultdict[Place | None, set[Place]] = defaultdict(set)
        self._deleted: OrderedDict[str, None] = OrderedDict()

    def get(self, kind: Kind, namespace: str, name: str) -> Body | None:
        return self._bodies.get((kind, namespace, name))

    def of(self, key: Key, kind: Kind) -> list[Body]:
        """Return the mixture's objects of a kind, sorted by name."""
        names = sorted(self._members.get(key, {}).get(kind, ()))
        return [self._bodies[kind, key.namespace, name] for name in names]

    def view(self, key: Key) -> dict[tuple[Kind, str], Body]:
        """Return all objects of a mixture as they are known now, by kind and name."""
        return {
            (kind, name): self._bodies[kind, key.namespace, name]
            for kind, names in self._members.get(key, {}).items()
            for name in names
        }

    def of_cluster(self, kind: Kind) -> list[Body]:
        """Return the objects of a kind that is in no namespace, sorted by name."""
        return [self._bodies[place] for place in sorted(self._cluster[kind], key=lambda p: p[2])]

    def all(self, kind: Kind) -> list[Body]:
        """Return all objects of a kind."""
        return [body for place, body in self._bodies.items() if place[0] == kind]

    def __contains__(self, key: Key) -> bool:
        return key in self._members

    def keys(self) -> list[Key]:
        """Return every mixture that has an object here."""
        return sorted(self._members)

    def put(self, kind: Kind, body: Body) -> frozenset[Key]:
        """Take in an object as seen or written. Returns the mixtures that it changes.

        Nothing changes where it is older than what is known, or where it was deleted.
        """
        place = _place(kind, body)
        known = self._bodies.get(place)
        if uid(body) in self._deleted or _stale(body, known):
            return frozenset()
        before = frozenset() if known is None else self._leave(place)
        if known is not None and uid(known) != uid(body):
            self._forget(known)
        self._bodies[place] = body
        if not kind.namespaced:
            return self._touch(place, known, body)
        return before | self._join(place, body)

    def remove(self, kind: Kind, body: Body) -> frozenset[Key]:
        """Take out an object, of which at least metadata is given. Returns its mixtures."""
        place = _place(kind, body)
        self._forget(body)
        known = self._bodies.get(place)
        if known is None or uid(known) != uid(body):
            return frozenset()
        if not kind.namespaced:
            del self._bodies[place]
            self._cluster[kind].discard(place)
            return frozenset(self.keys())
        changed = self._leave(place)
        del self._bodies[place]
        return changed | self._rehome(place)

    def _touch(self, place: Place, known: Body | None, body: Body) -> frozenset[Key]:
        """Take in an object of no namespace: where it says something new, it concerns everybody."""
        self._cluster[place[0]].add(place)
        same = known is not None and _essence(known) == _essence(body)
        return frozenset() if same else frozenset(self.keys())

    def _join(self, place: Place, body: Body) -> frozenset[Key]:
        if place[0] == OVERRIDE:
            self._overrides[_target(place, body)].add(place)
        return self._settle(place) | self._rehome(place)

    def _leave(self, place: Place) -> frozenset[Key]:
        if place[0] == OVERRIDE:
            self._overrides[_target(place, self._bodies[place])].discard(place)
        return self._unsettle(place)

    def _settle(self, place: Place) -> frozenset[Key]:
        key = self._key_of(place)
        if key is None:
            return frozenset()
        self._keys[place] = key
        self._members.setdefault(key, {}).setdefault(place[0], set()).add(place[2])
        return frozenset({key})

    def _unsettle(self, place: Place) -> frozenset[Key]:
        key = self._keys.pop(place, None)
        if key is None:
            return frozenset()
        kinds = self._members[key]
        kinds[place[0]].discard(place[2])
        if not kinds[place[0]]:
            del kinds[place[0]]
        if not kinds:
            del self._members[key]
        return frozenset({key})

    def _rehome(self, place: Place) -> frozenset[Key]:
        """Give the Overrides of what came or went the mixture that they now have."""
        changed: frozenset[Key] = frozenset()
        for override in self._overrides.get(place, ()):
            changed |= self._unsettle(override) | self._settle(override)
        return changed

    def _key_of(self, place: Place) -> Key | None:
        kind, namespace, _ = place
        owner = self._bodies.get(place)
        if kind == OVERRIDE and owner is not None and (target := _target(place, owner)):
            kind, owner = target[0], self._bodies.get(target)
            if owner is None:  # it is told so, by whoever looks at what has the target's name
                return Key(namespace, target[2])
        mixture = "" if owner is None else mixture_of(kind, owner)
        return Key(namespace, mixture) if mixture else None

    def _forget(self, body: Body) -> None:
        self._deleted[uid(body)] = None
        while len(self._deleted) > _REMEMBERED_DELETIONS:
            self._deleted.popitem(last=False)


def _place(kind: Kind, body: Body) -> Place:
    meta = metadata(body)
    return kind, str(meta.get("namespace", "")), str(meta.get("name", ""))


def _stale(body: Body, known: Body | None) -> bool:
    return known is not None and resource_version(body) <= resource_version(known)


def _essence(body: Body) -> tuple[object, ...]:
    """Return what is told of a node, without its heartbeats."""
    conditions = status_of(body).get("conditions") or ()
    told = [(c.get("type"), c.get("status"), c.get("lastTransitionTime")) for c in conditions]
    return spec_of(body), labels_of(body), told


def _target(place: Place, override: Body) -> Place | None:
    """Return the Expert or Gate that an Override decides about; None for other targets."""
    kind, name = target_of(override)
    found = next((k for k in (EXPERT, GATE) if k.name == kind), None)
    return None if found is None or not name else (found, place[1], name)
