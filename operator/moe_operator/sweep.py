"""Compares the cache with the API server: a watch that begins anew tells of no deletion.

The first pass reads everything; nothing is decided before it is done. Later passes read metadata
only, and whole objects only where they differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from logging import WARNING

from moe_core.log import tell
from moe_operator.cache import Cache, Key, resource_version, uid
from moe_operator.cluster import Lister, NotFound, Refused
from moe_operator.kinds import OPTIONAL, WATCHED, Body, Kind, metadata


@dataclass(frozen=True, slots=True)
class Sweep:
    """Brings the cache to what the API server holds; `changed` is told what that changes."""

    lister: Lister
    cache: Cache
    namespaces: tuple[str | None, ...]  # (None,) for all
    changed: Callable[[Iterable[Key]], None]
    kinds: tuple[Kind, ...] = WATCHED

    async def fill(self) -> tuple[Kind, ...]:
        """Read every object; return the kinds that may be read. Raises ApiError."""
        return tuple([kind for kind in self.kinds if await self._fill(kind)])

    async def _fill(self, kind: Kind) -> bool:
        for namespace in self._namespaces(kind):
            try:
                bodies, _ = await self.lister.list_all(kind, namespace, brief=False)
            except Refused as error:
                if kind not in OPTIONAL:
                    raise
                tell("not_looked_at", level=WARNING, kind=kind.plural, reason=error)
                return False
            for body in bodies:
                self.changed(self.cache.put(kind, body))
        return True

    def _namespaces(self, kind: Kind) -> tuple[str | None, ...]:
        return self.namespaces if kind.namespaced else (None,)

    async def check(self) -> int:
        """Find what the watches missed. Returns how many objects differed. Raises ApiError."""
        missed = 0
        for kind in self.kinds:
            for namespace in self._namespaces(kind):
                missed += await self._check(kind, namespace)
        if missed:
            tell("changes_missed", level=WARNING, count=missed)
        return missed

    async def _check(self, kind: Kind, namespace: str | None) -> int:
        bodies, listed_at = await self.lister.list_all(kind, namespace, brief=True)
        there = {uid(body) for body in bodies}
        gone = [
            body
            for body in self.cache.all(kind)
            if namespace in (None, metadata(body).get("namespace"))
            and uid(body) not in there
            and resource_version(body) <= listed_at
        ]
        for body in gone:
            self.changed(self.cache.remove(kind, body))
        newer = [body for body in bodies if self._unknown(kind, body)]
        for body in newer:
            await self._read(kind, body)
        return len(gone) + len(newer)

    def _unknown(self, kind: Kind, body: Body) -> bool:
        meta = metadata(body)
        known = self.cache.get(kind, meta.get("namespace", ""), meta["name"])
        if known is None or uid(known) != uid(body):
            return True
        return resource_version(known) < resource_version(body)

    async def _read(self, kind: Kind, body: Body) -> None:
        meta = metadata(body)
        try:
            found = await self.lister.get(kind, meta.get("namespace", ""), meta["name"])
        except NotFound:
            return
        self.changed(self.cache.put(kind, found))
