"""Remembers what the objects of one mixture were read as, for as long as they are as they were.

An object in the cache is never changed in place, so that one which is still the same was read
already; so it is with what is made of what was read. What a look does not ask for again is
forgotten with it. It reads and judges nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from moe_operator.kinds import Body

T = TypeVar("T")

# By the function that read it and the object's identity; the object is kept so that it keeps that.
_Known = dict[tuple[Hashable, ...], tuple[object, Any]]


class Readings:
    """What was read in the last look, and in the one that goes on."""

    def __init__(self) -> None:
        self._before: _Known = {}
        self._now: _Known = {}

    def begin(self) -> None:
        """Begin a look: what the last one did not read is forgotten."""
        self._before, self._now = self._now, {}

    def of(self, read: Callable[..., T], body: Body, *more: object) -> T:
        """Return what a function reads in an object; what it raises is not remembered.

        What it is given besides must give the same for the same object.
        """
        return self._known((read, id(body)), body, lambda: read(body, *more))

    def made(
        self, make: Callable[..., T], same: tuple[object, ...], equal: tuple[Hashable, ...]
    ) -> T:
        """Return what a function makes of `same`, which never change in place, and of `equal`."""
        key = (make, *map(id, same), *equal)
        return self._known(key, same, lambda: make(*same, *equal))

    def _known(self, key: tuple[Hashable, ...], kept: object, find: Callable[[], T]) -> T:
        known = self._now.get(key) or self._before.get(key)
        if known is None:
            known = kept, find()
        self._now[key] = known
        found: T = known[1]
        return found
