"""Lets calls in: by their token where the mixture has tenants, else all of them.

A stream is let in once, and each of its requests only while its token is still valid.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from moe_router.callers import Callers
from moe_router.refusal import Refused
from moe_router.tenants import Caller, Tenants

LOOK_S: Final = 1.0  # how often the folder of digests is looked at

Metadata = Iterable[tuple[str, str | bytes]]


def _always() -> None:
    pass


@dataclass(frozen=True, slots=True)
class Entry:
    """Who was let in; `check` raises Refused once that holds no more."""

    caller: Caller
    check: Callable[[], None] = _always


class Door:
    """Open to all; each stream is somebody else."""

    def __init__(self) -> None:
        self._streams = itertools.count(1)

    def enter(self, metadata: Metadata) -> Entry:
        """Let a call in. Raises Refused."""
        return Entry(Caller(f"stream {next(self._streams)}"))

    async def watch(self) -> None:
        """Keep what it knows new, until cancelled."""
        await asyncio.Event().wait()


class TenantsDoor(Door):
    """Open to tenants."""

    def __init__(self, tenants: Tenants, callers: Callers) -> None:
        super().__init__()
        self._tenants, self._callers = tenants, callers

    def enter(self, metadata: Metadata) -> Entry:
        try:
            tenant, digest = self._callers.admit(metadata)
        except Refused:
            self._tenants.unauthenticated += 1
            raise
        return Entry(self._tenants.caller(tenant), lambda: self._callers.check(digest))

    async def watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            self._callers.refresh()
