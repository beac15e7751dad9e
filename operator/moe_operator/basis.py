"""What a plan was decided on: the objects of a mixture as they were known at that moment.

The cache goes on while a plan is carried out. A write that took its resourceVersion from there
would pass although the plan never saw the object as it is; so it is taken from here. It decides
nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

from moe_operator.cache import Cache, Key
from moe_operator.cluster import Conflict
from moe_operator.kinds import Body, Kind, metadata

# (mixture, object, whether it was deleted)
Done = Callable[[Key, Body, bool], None]


@dataclass(slots=True)
class Basis:
    """Objects as a plan saw them, and as its own writes left them since; `done` is told of each."""

    key: Key
    cache: Cache
    done: Done
    _bodies: dict[tuple[Kind, str], Body] = field(default_factory=dict)

    @classmethod
    def of(cls, cache: Cache, key: Key, done: Done) -> Self:
        """Take what the cache knows now; to be called before anything is awaited."""
        return cls(key, cache, done, cache.view(key))

    def get(self, kind: Kind, name: str) -> Body | None:
        return self._bodies.get((kind, name))

    def seen(self, kind: Kind, name: str) -> Body:
        """Return an object that the plan was made from. Raises Conflict where there was none."""
        body = self.get(kind, name)
        if body is None:
            raise Conflict(f"{kind.name} {name} is gone")
        return body

    def put(self, kind: Kind, body: Body) -> None:
        """Take in the answer to a write."""
        self._bodies[kind, str(metadata(body)["name"])] = body
        self.cache.put(kind, body)
        self.done(self.key, body, False)

    def remove(self, kind: Kind, body: Body) -> None:
        """Take in that an object was deleted."""
        self._bodies.pop((kind, str(metadata(body)["name"])), None)
        self.cache.remove(kind, body)
        self.done(self.key, body, True)
