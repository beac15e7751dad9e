"""The routing table that a router serves with: takes newer ones whole, and lets requests wait.

Epochs compare only within one uid. A table that cannot be read is refused and the last one stays,
which then grows old: it is confirmed only by a source that has this very table.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from enum import StrEnum

from moe_core.dtypes import UnknownDtype, by_name
from moe_core.log import tell
from moe_core.rows import ExpertRow, GateRow
from moe_core.table import Table
from moe_router.refusal import Code, Refused
from moe_router.said import Said
from moe_router.sessions import Start
from moe_router.view import View


class Source(StrEnum):
    """By whom a router has the table that it serves."""

    LIVE = "Live"  # the API server, or a file, has said since the start that this is the table
    KEPT = "Kept"  # only the router's own copy on disk, from before its start


class Tables:
    """Holds the newest table. Everything happens on one event loop."""

    def __init__(self, mixture: str, clock: Callable[[], float]) -> None:
        self._mixture, self._clock = mixture, clock
        self._view: View | None = None
        self._confirmed_s = 0.0
        self._source = Source.LIVE
        self._current = False  # whether what the source said last is what is served
        self._older: tuple[str, int] | None = None
        self._changed = asyncio.Event()
        self._listeners: list[Callable[[View], None]] = []

    @property
    def view(self) -> View | None:
        return self._view

    @property
    def source(self) -> Source:
        return self._source

    @property
    def age_s(self) -> float:
        """Seconds since the source last said that this is the table."""
        return max(0.0, self._clock() - self._confirmed_s)

    def on_change(self, listener: Callable[[View], None]) -> None:
        """Call `listener` with each new table, on the event loop."""
        self._listeners.append(listener)

    def confirm(self) -> bool:
        """Take note that the source has what it said last; says whether that is what is served."""
        if self._view is None or not self._current:
            return False
        self._confirmed_s = self._clock()
        if self._source is Source.KEPT:
            self._source = Source.LIVE
            tell("table_live", uid=self._view.table.uid, epoch=self._view.table.epoch)
        return True

    def offer(self, said: Said) -> bool:
        """Take what the source has if it is newer than what is served; says whether."""
        table, old = self._usable(said), self._view.table if self._view else None
        taken = table is not None and succeeds(table, old, kept=False)
        self._current = table is not None and (taken or _same(table, old))
        if table is not None and taken:
            self._take(table)
        self.confirm()
        if table is not None and not self._current and old is not None:
            self._tell_older(table, old)
        return taken

    def restore(self, said: Said, age_s: float) -> bool:
        """Take the router's own copy, if it may be served; says whether."""
        table = self._usable(said)
        if table is None or not succeeds(
            table, self._view.table if self._view else None, kept=True
        ):
            return False
        tell("table_from_copy", uid=table.uid, epoch=table.epoch, age_s=round(age_s))
        self._source, self._current = Source.KEPT, False
        self._confirmed_s = self._clock() - age_s
        self._take(table)
        return True

    def _usable(self, said: Said) -> Table | None:
        wrong = said.wrong if said.table is None else self._wrong(said.table)
        if wrong:
            tell("table_refused", mixture=self._mixture, reason=wrong)
            return None
        return said.table

    def _wrong(self, table: Table) -> str:
        try:
            by_name(table.dtype)
        except UnknownDtype as error:
            return str(error)
        if table.mixture != self._mixture:
            return f"spec.mixture is {table.mixture!r}; this router serves {self._mixture!r}"
        return ""

    def _take(self, table: Table) -> None:
        old = self._view.table if self._view else None
        tell("table", uid=table.uid, epoch=table.epoch, was=old.epoch if old else 0)
        for row, sha256 in _newly_revoked(old, table):
            tell("version_revoked", name=row.name, sha256=sha256, epoch=table.epoch)
        self._view = View.of(table)
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        for listener in self._listeners:
            listener(self._view)

    def _tell_older(self, table: Table, served: Table) -> None:
        if self._older != (table.uid, table.epoch):
            self._older = table.uid, table.epoch
            tell("table_older", uid=table.uid, epoch=table.epoch, served=served.epoch)

    async def reach(self, start: Start, timeout_s: float) -> View | None:
        """Wait for a table of the start's uid and at least its epoch; return the newest then."""
        try:
            async with asyncio.timeout(timeout_s):
                while self._view is None or not start.known_to(self._view):
                    await self._changed.wait()
        except TimeoutError:
            pass
        return self._view


def succeeds(new: Table, old: Table | None, *, kept: bool) -> bool:
    """Return whether a table takes the place of the one that is served.

    Within one uid epochs only rise, wherever a table comes from: what was revoked stays so. Another
    uid is another life of the mixture, which was deleted and made again: then what the source says
    is the truth, whatever its epoch, and a copy is of the life that is over.
    """
    if old is None:
        return True
    return new.epoch > old.epoch if new.uid == old.uid else not kept


def _same(one: Table, other: Table | None) -> bool:
    return other is not None and (one.uid, one.epoch) == (other.uid, other.epoch)


def _newly_revoked(old: Table | None, new: Table) -> Iterator[tuple[ExpertRow | GateRow, str]]:
    before = {} if old is None else {_place(row): row.revoked for row in _rows(old) if row.revoked}
    for row in _rows(new):
        for sha256 in row.revoked:
            if sha256 not in before.get(_place(row), ()):
                yield row, sha256


def _rows(table: Table) -> list[ExpertRow | GateRow]:
    return [*table.experts, *table.gates]


def _place(row: ExpertRow | GateRow) -> tuple[type, str]:
    return type(row), row.name


def served(tables: Tables) -> View:
    """Return the newest table. Raises Refused while there is none."""
    if tables.view is None:
        raise Refused(Code.UNAVAILABLE, "this router has no routing table yet", 200)
    return tables.view
