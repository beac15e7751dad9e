"""Lets a process write only while it leads: a leader that slept finds out before its next write.

The process may have been stopped, or starved of its processor, for longer than the Lease lasts;
by its own clock it then knows that another may lead. What is on its way at such a moment still
meets the resourceVersions that every write carries.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from moe_operator.cluster import ApiError, Writer
from moe_operator.kinds import Body, Kind


class NotLeading(ApiError):
    """This process does not lead now: nothing was sent."""


@dataclass(frozen=True, slots=True)
class Fence:
    """A `Writer` that raises NotLeading instead of writing while `leads` says no."""

    writer: Writer
    leads: Callable[[], bool]

    async def create(self, kind: Kind, body: Body) -> Body:
        self._pass("create", kind)
        return await self.writer.create(kind, body)

    async def replace(self, kind: Kind, body: Body) -> Body:
        self._pass("replace", kind)
        return await self.writer.replace(kind, body)

    async def apply(self, kind: Kind, body: Body) -> Body:
        self._pass("apply", kind)
        return await self.writer.apply(kind, body)

    async def merge(
        self, kind: Kind, namespace: str, name: str, patch: Mapping[str, Any], subresource: str = ""
    ) -> Body:
        self._pass("change", kind)
        return await self.writer.merge(kind, namespace, name, patch, subresource)

    async def delete(self, kind: Kind, body: Body) -> None:
        self._pass("delete", kind)
        await self.writer.delete(kind, body)

    def _pass(self, verb: str, kind: Kind) -> None:
        if not self.leads():
            raise NotLeading(f"{verb} {kind.name}: the lease was not renewed in time")
