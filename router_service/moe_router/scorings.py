"""Has candidates of gates look at live rows when there is nothing better to do, and sums it up.

Off the way of every request: the answer has gone out, one sample is under way at a time, and where
the event loop runs late a sample is dropped before anything is computed for it. What takes long is
computed in a thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from moe_artifacts.artifact import GateLayer
from moe_core.log import tell_error
from moe_core.rows import GateRow, GateVariant
from moe_router.gate_shadow import Sample, Scored, sample, score
from moe_router.refusal import Refused
from moe_router.request import Request
from moe_router.view import View

LATE_S = 0.005  # how long a loop with time to spare may take to come to what is due at once
LONG_PRODUCTS = 1 << 22  # about a millisecond; the loop is not held up for longer


class Gates(Protocol):
    """Where the tensors of gates come from."""

    def layer(self, gate: GateRow, variant: GateVariant, layer: int) -> GateLayer:
        """Return the tensors of a layer. Raises Refused while they are not there."""
        ...


@dataclass(frozen=True, slots=True)
class Compared:
    """Which two versions of a gate were compared, and in which layer."""

    gate: str
    sha256: str
    base_sha256: str
    layer: int


class Scorings:
    """The samples, and sums over them. Everything but the scoring happens on one event loop."""

    def __init__(self, gates: Gates, clock: Callable[[], float]) -> None:
        self._gates, self._clock = gates, clock
        self._sums: dict[Compared, Scored] = {}
        self._turn = 0
        self._under_way: asyncio.Task[None] | None = None

    def sums(self) -> Iterator[tuple[Compared, Scored]]:
        """Give the sums of everything that was compared."""
        yield from self._sums.items()

    def keep(self, view: View) -> None:
        """Forget what a table tries no more: one that is tried again is looked at anew."""
        tried = {
            (gate.name, gate.candidate.sha256, gate.stable.sha256)
            for gate in view.tried_gates
            if gate.candidate is not None
        }
        self._sums = {
            of: scored
            for of, scored in self._sums.items()
            if (of.gate, of.sha256, of.base_sha256) in tried
        }

    def follow(self, request: Request, newest: View) -> None:
        """Have a candidate look at an answered request, if it is its turn and there is room."""
        self._turn += 1
        if self._under_way is not None:
            return
        found = sample(request, newest, self._turn)
        if found is None:
            return
        row = newest.gates[found.layer]
        try:
            base = self._gates.layer(row, found.base, found.layer)
            other = self._gates.layer(row, found.candidate, found.layer)
        except Refused:  # not here yet
            return
        self._under_way = asyncio.create_task(self._score(found, base, other, self._clock()))

    async def _score(
        self, found: Sample, base: GateLayer, other: GateLayer, asked_s: float
    ) -> None:
        try:
            if self._clock() - asked_s <= LATE_S:
                if found.products > LONG_PRODUCTS:
                    scored = await asyncio.to_thread(score, found, base, other)
                else:
                    scored = score(found, base, other)
                self._add(found, scored)
        except Exception as error:  # whatever it is, requests go on
            tell_error("bug", reason=repr(error))
        finally:
            self._under_way = None

    def _add(self, found: Sample, scored: Scored) -> None:
        base, candidate = found.base.sha256, found.candidate.sha256
        key = Compared(found.gate, candidate, base, found.layer)
        before = self._sums.get(key)
        self._sums[key] = scored if before is None else before.plus(scored)
