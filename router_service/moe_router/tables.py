"""The routing table that a router serves with: takes newer ones whole, and lets requests wait.

Epochs compare only within one uid. A table that cannot be read is refused and the last one stays.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

from moe_core.document import InvalidDocument
from moe_core.dtypes import UnknownDtype, by_name
from moe_core.log import tell
from moe_core.rows import ExpertRow, GateRow
from moe_core.table import Table
from moe_router.refusal import Code, Refused
from moe_router.sessions import Start
from moe_router.view import View


class Tables:
    """Holds the newest table. Everything happens on one event loop."""

    def __init__(self, mixture: str, clock: Callable[[], float]) -> None:
        self._mixture, self._clock = mixture, clock
        self._view: View | None = None
        self._confirmed_s = 0.0
        self._changed = asyncio.Event()
        self._listeners: list[Callable[[View], None]] = []

    @property
    def view(self) -> View | None:
        return self._view

    @property
    def age_s(self) -> float:
        """Seconds since the source last said that this is the table."""
        return max(0.0, self._clock() - self._confirmed_s)

    def on_change(self, listener: Callable[[View], None]) -> None:
        """Call `listener` with each new table, on the event loop."""
        self._listeners.append(listener)

    def confirm(self, age_s: float = 0.0) -> None:
        """Take note that the source still has the table that is served."""
        self._confirmed_s = self._clock() - age_s

    def offer(self, body: dict[str, Any], *, age_s: float = 0.0) -> bool:
        """Take a RoutingTable object if it is newer than what is served; says whether."""
        try:
            table = Table.from_object(body)
            by_name(table.dtype)
        except (InvalidDocument, UnknownDtype) as error:
            tell("table_refused", mixture=self._mixture, reason=error)
            return False
        if table.mixture != self._mixture:
            reason = f"spec.mixture is {table.mixture!r}; this router serves {self._mixture!r}"
            tell("table_refused", mixture=self._mixture, reason=reason)
            return False
        self.confirm(age_s)
        old = self._view
        if old is not None and old.table.uid == table.uid and old.table.epoch >= table.epoch:
            return False
        tell("table", uid=table.uid, epoch=table.epoch, was=old.table.epoch if old else 0)
        for row, sha256 in _newly_revoked(old.table if old else None, table):
            tell("version_revoked", name=row.name, sha256=sha256, epoch=table.epoch)
        self._view = View.of(table)
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        for listener in self._listeners:
            listener(self._view)
        return True

    async def reach(self, start: Start, timeout_s: float) -> View | None:
        """Wait for a table of the start's uid and at least its epoch; return the newest then."""
        try:
            async with asyncio.timeout(timeout_s):
                while self._view is None or not start.known_to(self._view):
                    await self._changed.wait()
        except TimeoutError:
            pass
        return self._view


def _newly_revoked(old: Table | None, new: Table) -> Iterator[tuple[ExpertRow | GateRow, str]]:
    before = {} if old is None else {_place(row): row.revoked for row in _rows(old)}
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
