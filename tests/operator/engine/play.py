"""The whole operator but for its watches, on an API server in memory, with time as an argument.

`Play` drives engine, nodes and reports in turns, without sleeping, until nothing is left to do.
The operator can be killed at any write: the write has happened, its answer is lost, and an
operator that knows nothing takes over. A `Witness` looks at every table that is written.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from moe_core.parts import LARGEST_BYTES
from moe_operator.apply import Apply
from moe_operator.cache import Cache, Key
from moe_operator.cluster import ApiError
from moe_operator.collect import Leads, OperatorMetrics
from moe_operator.engine import Engine
from moe_operator.kinds import CONTROLLER_REVISION, ROUTING_TABLE, Body, Kind, metadata
from moe_operator.notes import Notes
from moe_operator.queue import WorkQueue
from moe_operator.reconcile import Reconcile
from moe_operator.reports import Targets, Unanswered
from moe_operator.router_report import RouterReport
from moe_operator.scalers import Scalers
from moe_operator.sweep import Sweep
from moe_operator.template import Settings
from moe_operator.world import WorkerReport
from tests.fakes.kube_api import KubeApi
from tests.operator.engine.bodies import NAMESPACE
from tests.operator.engine.scene import Clients
from tests.operator.engine.wire import Wire
from tests.operator.engine.witness import Witness
from tests.operator.kube.nodes import Nodes
from tests.support.whole import whole_table

T = TypeVar("T")

START = datetime(2026, 1, 1, tzinfo=UTC)
_TURN_S = 0.25
_SWEEP_S = 10.0
_AT_MOST = 600


class Killed(BaseException):
    """The operator's process is no more."""


@dataclass(slots=True)
class Asked:
    """A `Follower` that asks the nodes when it is told to."""

    nodes: Nodes
    asked_at: float = 0.0
    seen: object = None  # what was there to be told of when it asked last
    sooner: bool = True  # whom to ask, or how often, has changed since
    targets: dict[Key, Targets] = field(default_factory=dict)
    said: dict[Key, tuple[tuple[RouterReport, ...], tuple[WorkerReport, ...]]] = field(
        default_factory=dict
    )

    def routers(self, key: Key) -> tuple[RouterReport, ...]:
        return self.said.get(key, ((), ()))[0]

    def workers(self, key: Key) -> tuple[WorkerReport, ...]:
        return self.said.get(key, ((), ()))[1]

    def follow(self, key: Key, targets: Targets) -> None:
        self.sooner |= self.targets.get(key) != targets
        self.targets[key] = targets

    def next_at(self) -> float:
        """Return when to ask again at the pace that was asked for."""
        pauses = [targets.every_s for targets in self.targets.values()]
        return self.asked_at + (0.0 if self.sooner else min(pauses, default=0.0))

    async def leave(self, key: Key) -> None:
        self.targets.pop(key, None)
        self.said.pop(key, None)

    async def ask(self, now: datetime) -> list[Key]:
        """Ask everybody; return the mixtures of which something else was said than before."""
        news = []
        for key, targets in self.targets.items():
            routers, workers = [], []
            for pod, address in targets.routers.items():
                with contextlib.suppress(Unanswered):
                    said = await self.nodes.router(address, targets.digests, targets.watched)
                    routers.append(replace(said, pod=pod, at=now))
            for pod, address in targets.workers.items():
                with contextlib.suppress(Unanswered):
                    said_by = await self.nodes.worker(address)
                    workers += [replace(report, pod=pod) for report in said_by]
            if not _same(self.routers(key), routers) or self.workers(key) != tuple(workers):
                news.append(key)
            self.said[key] = tuple(routers), tuple(workers)
        return news


def _same(before: Iterable[RouterReport], now: Iterable[RouterReport]) -> bool:
    return [replace(report, at=START) for report in before] == [
        replace(report, at=START) for report in now
    ]


@dataclass(slots=True)
class Play:
    """A `Scene` of one namespace, its nodes, and the operator of the moment."""

    api: KubeApi = field(default_factory=KubeApi)
    seconds: float = 0.0
    writes: list[str] = field(default_factory=list)  # the operators', in order
    deaths: int = 0
    kill_after: int = -1  # so many writes
    refuse: ApiError | None = None  # instead of the next write after `refuse_after` of them
    refuse_after: int = -1
    lag: int = 0  # so many events old is the list that the next operator starts from
    loses_answer: bool = False  # it is done, and only its answer is an error
    paced: bool = False  # reports come as often as the operator asks, not each turn
    namespace: str = NAMESPACE
    largest_table: int = LARGEST_BYTES  # a larger one is in parts
    wire: Wire = field(init=False)
    witness: Witness = field(init=False)
    nodes: Nodes = field(init=False)
    clients: Clients = field(init=False)
    _running: bool = False
    _cut_short: bool = False  # whether the last look did not come to its end
    _swept: float = 0.0
    _asked: Asked = field(init=False)
    _engine: Engine = field(init=False)
    _sweep: Sweep = field(init=False)
    _look: Reconcile = field(init=False)
    _scalers: Scalers = field(init=False)

    def __post_init__(self) -> None:
        self.nodes = Nodes(self.api, NAMESPACE)
        self.clients = Clients(self.nodes)
        self.nodes.clock = lambda: self.seconds
        self.witness = Witness(self.api.objects)
        self.wire = Wire(self._deliver, objects=dict(self.api.objects))
        self.wire.put_down()
        self.api.watchers += [self.witness.see, self.wire.tell]

    def copy(self) -> Play:
        """Return the same scene, with everything in it, to go on from here; its operator rests."""
        api = KubeApi(dict(self.api.objects), version=self.api.version, uids=self.api.uids)
        api.annotated = dict(self.api.annotated)
        play = Play(api, self.seconds, list(self.writes), largest_table=self.largest_table)
        play.nodes.take(self.nodes)
        play.clients = Clients(play.nodes, self.clients.bad, self.clients.ask)
        return play

    def now(self) -> datetime:
        return START + timedelta(seconds=self.seconds)

    def metrics(self, lease: Leads | None = None) -> OperatorMetrics:
        """Return what the operator of the moment tells Prometheus."""
        return OperatorMetrics(
            self._engine, self._look.ends, self._look.drifts, "moeops-operator", lease
        )

    async def put(self, *bodies: Mapping[str, Any]) -> None:
        for body in bodies:
            self.api.put(body)

    async def operate(self, running: bool) -> None:
        self._running = running
        if running:
            await self.start()

    async def end(self, ending: bool) -> None:
        (self.api.ending.add if ending else self.api.ending.discard)(NAMESPACE)

    async def start(self, lag: int = 0) -> None:
        """Start an operator that knows nothing but what the API server held, so many events ago."""
        cache = Cache()
        self._running = True
        self._asked = Asked(self.nodes)
        self._engine = Engine(cache, self.now, WorkQueue(lambda: self.seconds))
        self._sweep = Sweep(self.api, cache, (None,), self._engine.add)
        notes = Notes(self.api, cache, self.now)
        writing = _Mortal(self), self.api, cache, notes
        done = self._engine.done
        apply = Apply(*writing, largest_table=self.largest_table, done=done)
        settings = Settings("worker", "router", "evaluator")
        self._scalers = Scalers()
        look = Reconcile(cache, self._asked, apply, settings, self.now, scalers=self._scalers)
        self._look = look
        for kind, body in self.wire.listed(lag):
            self._engine.add(cache.put(kind, body))

    async def until(self, check: Callable[[Body], object]) -> None:
        """Let time pass until the table is so, and the look that made it so is over."""
        goes_on = True
        for _ in range(_AT_MOST):
            table = self._table()
            if not self._cut_short and check(table):
                return
            if not goes_on:
                raise AssertionError(f"all is quiet, but the table is {table}")
            goes_on = await self._goes_on()
        raise AssertionError("the table never becomes so")

    def _table(self) -> Body:
        """Return the whole spec of the table; empty without one."""
        table = self.api.objects.get((ROUTING_TABLE, NAMESPACE, "tiny"))
        kept = (body for place, body in self.api.objects.items() if place[0] == CONTROLLER_REVISION)
        spec: Body = {} if table is None else whole_table(table, kept)["spec"]
        return spec

    async def passes(self, seconds: float) -> None:
        end = self.seconds + seconds
        while self.seconds < end:
            await self._turn()
            self.seconds += _TURN_S

    async def rest(self) -> None:
        for _ in range(_AT_MOST):
            if not await self._goes_on():
                return
        raise AssertionError("it never ends")

    async def _goes_on(self) -> bool:
        """Take a turn, and let time pass until the next; False where nobody has anything to do."""
        if await self._turn():
            self.seconds += _TURN_S
            return True
        deadlines = [self._engine.queue.next_deadline()] if self._running else []
        if self._running and self.wire.lost:
            deadlines.append(self._swept + _SWEEP_S)
        if self._running and self.paced and self._asked.seen != self._told():
            deadlines.append(self._asked.next_at())
        at = min((at for at in deadlines if at is not None), default=None)
        if at is not None:
            self.seconds = max(self.seconds, at)
        return at is not None

    async def _turn(self) -> bool:
        """Let everybody act once; return whether anything came of it."""
        self.clients.turn()
        before = self._state()
        await self.nodes.step()
        news = self._running and await self._operator()
        return news or self.wire.pending or self._state() != before

    async def _operator(self) -> bool:
        """Let the operator act until it waits; return whether it was told anything new."""
        self.wire.turn()
        if self._engine.listed.is_set() or self.seconds >= self._swept + _SWEEP_S:
            self._engine.listed.clear()
            self._swept, self.wire.lost = self.seconds, False
            await self._sweep.check()
        news: list[Key] = []
        if not self.paced or self.seconds >= self._asked.next_at():
            self._asked.asked_at, self._asked.sooner = self.seconds, False
            self._asked.seen = self._told()
            news = await self._asked.ask(self.now())
            asked = list(self._asked.targets)
            heard = [(key, self._asked.routers(key)) for key in asked]
            news += [key for key, said in heard if self._scalers.hear(key, said, self.now())]
            for memories in (self._look.drifts, self._look.checkups):
                news += [key for key, said in heard if memories.hear(key, said, self.now())]
        self._engine.add(news)
        try:
            while (key := self._engine.queue.poll()) is not None:
                self._cut_short = True
                await self._engine.step(key, self._whole_look)
        except Killed:
            self.deaths += 1
            await self.start(self.lag)
        return bool(news)

    def _told(self) -> object:
        """Return what routers and workers can tell of."""
        return self.api.version, dict(self.nodes.counters), dict(self.nodes.chosen)

    async def _whole_look(self, key: Key) -> datetime | None:
        again_at = await self._look(key)
        self._cut_short = False
        return again_at

    def _state(self) -> object:
        return self.api.version, self.deaths, dict(self._asked.targets)

    def _deliver(self, kind: Kind, event: str | None, body: Body) -> None:
        if self._running:
            self._engine.seen(kind, event, body)


@dataclass(slots=True)
class _Mortal:
    """A `Writer` that dies after the write that is the play's `kill_after`, and stays dead."""

    play: Play
    dead: bool = False

    async def create(self, kind: Kind, body: Body) -> Body:
        return await self._do("create", _what(kind, body), self.play.api.create(kind, body))

    async def replace(self, kind: Kind, body: Body) -> Body:
        return await self._do("replace", kind.name, self.play.api.replace(kind, body))

    async def apply(self, kind: Kind, body: Body) -> Body:
        return await self._do("apply", kind.name, self.play.api.apply(kind, body))

    async def merge(
        self, kind: Kind, namespace: str, name: str, patch: Any, subresource: str = ""
    ) -> Body:
        done = self.play.api.merge(kind, namespace, name, patch, subresource)
        return await self._do(f"merge {subresource}".strip(), kind.name, done)

    async def delete(self, kind: Kind, body: Body) -> None:
        await self._do("delete", _what(kind, body), self.play.api.delete(kind, body))

    async def _do(self, verb: str, what: str, write: Coroutine[Any, Any, T]) -> T:
        if self.dead:
            write.close()
            raise Killed
        if self.play.refuse is not None and len(self.play.writes) == self.play.refuse_after:
            refusal, self.play.refuse = self.play.refuse, None
            if self.play.loses_answer:
                await write
                self.play.writes.append(f"{verb} {what}")
            write.close()
            raise refusal
        answer = await write
        self.play.writes.append(f"{verb} {what}")
        if len(self.play.writes) == self.play.kill_after:
            self.dead = True
            raise Killed
        return answer


def _what(kind: Kind, body: Body) -> str:
    """Return the kind of an object; parts of tables are one of their own."""
    return "Part" if ".part-" in metadata(body)["name"] else kind.name
