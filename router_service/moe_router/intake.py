"""Takes in what sources say, keeps it on disk, and decides what a router that starts begins with.

Nothing is served before it is known which of the workers listed are there, or too much would be
degraded. What the API server says in the first moment goes before the copy on disk; where it says
nothing, the copy serves, until it does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import Final, Protocol

from moe_core.log import tell
from moe_router.copies import Copies
from moe_router.said import Said
from moe_router.tables import Tables

SETTLE_S: Final = 2.0
# How long a source may take to speak before the copy serves: a restart of the router alone should
# not begin by a table that has been replaced meanwhile.
SPEAK_S: Final = 1.0
# How exactly the age of a copy is known after a restart.
CONFIRM_S: Final = 10.0


class Workers(Protocol):
    """The links to workers; `settled` once it is known who of the first list is there."""

    settled: asyncio.Event

    def set_addresses(self, addresses: Collection[str]) -> None: ...


class Intake:
    """What comes from sources, on its way into tables, links and copies. On one event loop."""

    def __init__(
        self,
        tables: Tables,
        workers: Workers,
        copies: Copies | None,
        wall: Callable[[], float],
        clock: Callable[[], float],
    ) -> None:
        self._tables, self._workers, self._copies = tables, workers, copies
        self._wall, self._clock = wall, clock
        self._early: Said | None = None
        self._spoken, self._open = asyncio.Event(), False
        self._unsaved: Said | None = None
        self._confirmed_s = clock()

    def restore_workers(self) -> None:
        """Try the workers that were there last, until the source says who is."""
        known = self._copies.workers() if self._copies is not None else ()
        if known:  # to know of none is not to know that there are none
            self._workers.set_addresses(known)

    def take_workers(self, addresses: Collection[str]) -> None:
        self._workers.set_addresses(addresses)
        if self._copies is not None:
            self._copies.save_workers(addresses, self._wall())

    def take_table(self, said: Said) -> None:
        if self._open:
            self._offer(said)
        else:
            self._early = said
            self._spoken.set()

    def confirm(self) -> None:
        """Take note that the source still has what it said last; a copy is to know it, too."""
        if not self._tables.confirm() or self._copies is None:
            return
        if self._clock() - self._confirmed_s < CONFIRM_S:
            return
        self._confirmed_s = self._clock()
        if self._unsaved is not None:
            self._save(self._unsaved)
        else:
            self._copies.confirm_table(self._wall())

    async def open(self) -> None:
        """Wait for who is there and what the source says, neither for long, and begin to serve."""
        kept = self._copies.table(self._wall()) if self._copies is not None else None
        waits: list[Awaitable[bool]] = [within(SETTLE_S, self._workers.settled)]
        if kept is not None:
            waits.append(within(SPEAK_S, self._spoken))
        settled, *_ = await asyncio.gather(*waits)
        if not settled:
            tell("workers_unknown", waited_s=SETTLE_S)
            self._workers.settled.set()
        self._open = True
        early, self._early = self._early, None
        if early is not None:
            self._offer(early)
        if kept is not None:
            self._tables.restore(kept.said, kept.age_s)

    def _offer(self, said: Said) -> None:
        if self._tables.offer(said) and self._copies is not None:
            self._save(said)

    def _save(self, said: Said) -> None:
        """Before any router is asked which epoch it has: that one, or none, is what it restarts by.

        What cannot be written now is tried again.
        """
        assert self._copies is not None
        saved = self._copies.save_table(said, self._wall())
        self._unsaved = None if saved else said


async def within(seconds: float, event: asyncio.Event) -> bool:
    """Wait for an event, so long at most; says whether it came."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
