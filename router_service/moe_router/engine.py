"""Serves requests: gate, pins, exchange, budget, answer; the routing core for any program.

A program that gives it links, tables and gates has a router; the gRPC service is one such program,
a client that embeds the core is another. It owns the order of the stages and no rule of its own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt

from moe_core.tracing import Span
from moe_router.applied import choose
from moe_router.begin import Begun, begin, parse_begin
from moe_router.counters import Counters
from moe_router.dispatcher import Dispatcher
from moe_router.fates import Fate, fates
from moe_router.flight import Links
from moe_router.marks import Loss, Marks
from moe_router.message import Outlook, Part
from moe_router.outcomes import Outcomes
from moe_router.overflow import loads
from moe_router.refusal import Code, Refused
from moe_router.reporting import Reported, take_in
from moe_router.request import Request, Rows, check_mixture, parse_dispatch, parse_route
from moe_router.room import Room
from moe_router.scorings import Gates, Scorings
from moe_router.sequences import check_count
from moe_router.sessions import PinsKept, Start, Tokens, check_start
from moe_router.settle import Outcome
from moe_router.shadow import Shadows, Trail
from moe_router.spans import about, tell_combine, tell_gate
from moe_router.tables import Tables, served
from moe_router.tenants import Caller
from moe_router.view import View
from moe_router.window import Window
from moeops.v1.router_pb2 import (
    BeginRequest,
    DispatchRequest,
    ReportOutcomeRequest,
    RouteRequest,
)

Array = npt.NDArray[Any]

WAIT_FOR_TABLE_S = 1.0
NOBODY = Caller()
CALLERS_FAULT = frozenset({Code.INVALID_ARGUMENT, Code.NOT_FOUND, Code.FAILED_PRECONDITION})


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a router takes on at once, and how long it works on a request by default."""

    rows_in_flight: int = 65_536
    deadline_s: float = 5.0
    rows_at_work: int = 16_384
    weights: Mapping[str, int] = field(default_factory=dict)  # of flows, by name


@dataclass(frozen=True, slots=True)
class Answer:
    """A layer's output (T, H), the fate of each sequence, and the epoch it was served with.

    `trail` is what of it may be copied to candidates once it has gone out.
    """

    hidden: Array
    fates: tuple[Fate, ...]
    epoch: int
    trail: Trail | None = None


class Engine:
    """The routing core. Everything happens on one event loop."""

    def __init__(
        self,
        tables: Tables,
        links: Links,
        gates: Gates,
        clock: Callable[[], float],
        limits: Limits,
    ) -> None:
        self.counters = Counters(limits.rows_at_work // 4)
        self._tables, self._links, self._gates = tables, links, gates
        self._clock, self._limits = clock, limits
        self.outcomes = Outcomes()
        self._shadows = Shadows(links, self.counters)
        self.scorings = Scorings(gates, clock)
        self._tokens = Tokens()
        self._marks = Marks()
        self._pins = PinsKept()
        self._room = Room(limits.rows_in_flight)
        self._window = Window(limits.rows_at_work, limits.weights, clock)
        self._dispatcher = Dispatcher(links, self.counters, self._outlook, clock)

    @property
    def rows_under_way(self) -> int:
        return self._room.rows

    async def dispatch(
        self, message: DispatchRequest, span: Span | None = None, caller: Caller = NOBODY
    ) -> Answer:
        """Serve rows whose experts the caller chose; `span` if it is traced. Raises Refused."""

        def read(view: View) -> tuple[Rows, Callable[[], Request]]:
            request = parse_dispatch(message, view, self._tokens.read, self._pins.of)
            return request.rows, lambda: request

        return await self._serve(message, read, span, caller)

    async def route(
        self, message: RouteRequest, span: Span | None = None, caller: Caller = NOBODY
    ) -> Answer:
        """Serve rows, applying the table's gate; `span` if it is traced. Raises Refused."""

        def read(view: View) -> tuple[Rows, Callable[[], Request]]:
            rows = parse_route(message, view, self._tokens.read, self._pins.of)
            return rows, lambda: self._chosen(rows)

        return await self._serve(message, read, span, caller)

    def changed(self) -> None:
        """Have those look who wait for an expert: workers or the table have changed."""
        self.counters.colds.changed(self._links.routable.artifacts, self._clock())

    async def begin(self, message: BeginRequest) -> tuple[View, list[Begun]]:
        """Begin sessions, or look at those that have begun, by this table. Raises Refused."""
        beginners = parse_begin(message, self._tokens.read)
        view = await self._reach(one.start for one in beginners if one.start is not None)
        check_mixture(message.mixture, view)
        return view, [begin(one, view, self._pins.of) for one in beginners]

    async def report(self, message: ReportOutcomeRequest) -> Reported:
        """Take what clients found answers worth. Raises Refused, for a whole message only."""
        return await take_in(message, self._tables, self.outcomes, self._marks, WAIT_FOR_TABLE_S)

    def follow(self, answer: Answer) -> None:
        """Copy what candidates are to be tried with, now that an answer has gone out."""
        trail, newest = answer.trail, self._tables.view
        if trail is None or newest is None:
            return
        if newest.shadowed:
            self._shadows.follow(trail, self._outlook(newest))
        if trail.request.rows.layer in newest.shadowed_layers:
            self.scorings.follow(trail.request, newest)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self.counters.requests += 1
        try:
            yield
        except Exception as error:
            self.counters.refused(error.code.name if isinstance(error, Refused) else "INTERNAL")
            raise

    async def _table_for(self, message: DispatchRequest | RouteRequest) -> View:
        """Return the table to serve with: one that knows the epochs in which the sessions began."""
        check_count(message.sequences)
        return await self._reach(
            self._tokens.read(token, sequence.session, f"sequences[{index}].start_token")
            for index, sequence in enumerate(message.sequences)
            if (token := sequence.start_token)
        )

    def _knows(self, start: Start) -> bool:
        view = self._tables.view
        return view is not None and start.known_to(view)

    async def _reach(self, starts: Iterable[Start]) -> View:
        """Return the newest table, if need be after a wait for one that knows these epochs."""
        for start in starts:
            if not self._knows(start):
                await self._tables.reach(start, WAIT_FOR_TABLE_S)
            if self._tables.view is not None:
                check_start(start, self._tables.view)
        return served(self._tables)

    async def _serve(
        self,
        message: DispatchRequest | RouteRequest,
        read: Callable[[View], tuple[Rows, Callable[[], Request]]],
        span: Span | None,
        caller: Caller,
    ) -> Answer:
        """Serve rows, if their caller may have that many. What it may not is no gate's failure.

        Where the gate that chose is taken back meanwhile, all begins anew by the newest table.
        """
        began_s = self._clock()
        with self._counted():
            view = await self._table_for(message)
            rows, choose_ = read(view)
            with caller.hold(len(rows.hidden)):
                while True:
                    answer = await self._answer(rows, choose_, view, began_s, span, caller)
                    if answer is not None:
                        return answer
                    view = served(self._tables)
                    rows, choose_ = read(view)

    async def _answer(
        self,
        rows: Rows,
        choose_: Callable[[], Request],
        view: View,
        began_s: float,
        span: Span | None,
        caller: Caller,
    ) -> Answer | None:
        """Serve rows when it is their turn, and count for their gates how that went.

        None where that is of no use any more. Of a gate that is revoked by then: stable answers
        for experts that went with it, and the whole would be neither pair's.
        """
        gates = self.counters.gates
        within_s = rows.deadline_ms / 1000 if rows.deadline_ms else self._limits.deadline_s
        deadline_s = began_s + within_s
        if span is not None:
            span.tell(about(rows, view))
        try:
            async with self._turn(rows, caller, deadline_s - self._clock()):
                request = choose_()
                chosen_s = self._clock()
                if span is not None:
                    tell_gate(span, request, began_s, chosen_s)
                answer = await self._dispatcher.serve(request, view, span, deadline_s)
                answered_s = self._clock()
                served = answer()
                newest = self._tables.view or view
                if newest is not view and _outdated(rows, served.parts, newest):
                    return None
                self._account(view, served.outcomes)
        except Exception as error:
            if not (isinstance(error, Refused) and error.code in CALLERS_FAULT):
                gates.failed(rows, self._clock() - began_s)
            raise
        ended_s = self._clock()
        gates.answered(request, served.outcomes, ended_s - began_s)
        self.counters.timed(began_s, chosen_s, answered_s, ended_s)
        if span is not None:
            tell_combine(span, served.outcomes, answered_s, ended_s)
            self.counters.traced((began_s, chosen_s, answered_s, ended_s), span)
        for load in loads(request, view):
            self.counters.loaded(load)
        lots = fates(rows.sequences, served.outcomes, (view, newest), self._pins.of, self._marks)
        followed = view.shadowed or rows.layer in view.shadowed_layers
        trail = Trail(request, served.parts) if followed else None
        return Answer(served.hidden, *lots, trail)

    @asynccontextmanager
    async def _turn(self, rows: Rows, caller: Caller, within_s: float) -> AsyncIterator[None]:
        """Be at work in the block. Raises Refused where there is no room to wait for that."""
        with self._room.hold((s.session, s.last - s.first) for s in rows.sequences):
            session = max(rows.sequences, key=lambda s: s.last - s.first).session
            turn = self._window.turn(caller.flow, session, len(rows.hidden), within_s)
            async with turn as waited_s:
                caller.waited(waited_s)
                yield

    def _chosen(self, rows: Rows) -> Request:
        gate, layer = rows.gate, rows.layer
        return choose(rows, [self._gates.layer(gate, v, layer) for v in rows.variants])

    def _outlook(self, view: View) -> Outlook:
        newest = self._tables.view or view
        links, wakings = self._links, self.counters.colds.wakings
        return Outlook(self._clock(), newest, links.routable, links.load, links.lateness, wakings)

    def _account(self, view: View, outcomes: Sequence[Outcome]) -> None:
        losses = [
            Loss(o.session, o.mass, o.lost, tuple(expert for _, expert, _ in o.rungs))
            for o in outcomes
        ]
        self._marks.account(view.table.failover, losses)
        for outcome in outcomes:
            for rung, expert_id, rows in outcome.rungs:
                self.counters.rungs[rung, expert_id] += rows


def _outdated(rows: Rows, parts: Sequence[Part], newest: View) -> bool:
    """Whether this table revokes a gate that chose, or, in the last moment, who has answered."""
    return any(newest.revokes_gate(rows.layer, variant.sha256) for variant in rows.variants) or any(
        newest.revokes(part.ask.expert_id, part.ask.sha256) for part in parts
    )
