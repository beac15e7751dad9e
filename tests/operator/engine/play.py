"""The whole operator but for its watches, on an API server in memory, with time as an argument.

`Play` drives engine, nodes and reports in turns, without sleeping, until nothing is left to do.
The operator can be killed at any write: the write has happened, its answer is lost, and an
operator that knows nothing takes over.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from moe_operator.apply import Apply
from moe_operator.cache import Cache, Key
from moe_operator.cluster import ApiError
from moe_operator.engine import Engine
from moe_operator.kinds import ROUTING_TABLE, WATCHED, Body, Kind
from moe_operator.notes import Notes
from moe_operator.queue import WorkQueue
from moe_operator.reconcile import Reconcile
from moe_operator.reports import Targets, Unanswered
from moe_operator.template import Settings
from moe_operator.world import RouterReport, WorkerReport
from tests.fakes.kube_api import KubeApi
from tests.operator.engine.bodies import NAMESPACE
from tests.operator.kube.nodes import Nodes

T = TypeVar("T")

START = datetime(2026, 1, 1, tzinfo=UTC)


class Killed(BaseException):
    """The operator's process is no more."""


@dataclass(slots=True)
class Asked:
    """A `Follower` that asks the nodes when it is told to."""

    nodes: Nodes
    targets: dict[Key, Targets] = field(default_factory=dict)
    said: dict[Key, tuple[tuple[RouterReport, ...], tuple[WorkerReport, ...]]] = field(
        default_factory=dict
    )

    def routers(self, key: Key) -> tuple[RouterReport, ...]:
        return self.said.get(key, ((), ()))[0]

    def workers(self, key: Key) -> tuple[WorkerReport, ...]:
        return self.said.get(key, ((), ()))[1]

    def follow(self, key: Key, targets: Targets) -> None:
        self.targets[key] = targets

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
                    said = await self.nodes.router(address, targets.digests)
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
    """One namespace, its nodes, and the operator of the moment."""

    api: KubeApi = field(default_factory=KubeApi)
    seconds: float = 0.0
    writes: list[str] = field(default_factory=list)  # the operators', in order
    deaths: int = 0
    kill_after: int = -1  # so many writes
    refuse: ApiError | None = None  # instead of the next write after `refuse_after` of them
    refuse_after: int = -1
    # Called before each turn: what people and clients do.
    turn: Callable[[], None] = lambda: None
    # Called with each table that was written.
    on_table: Callable[[Body], None] = lambda table: None
    nodes: Nodes = field(init=False)
    _asked: Asked = field(init=False)
    _engine: Engine = field(init=False)
    _look: Reconcile = field(init=False)

    def __post_init__(self) -> None:
        self.nodes = Nodes(self.api, NAMESPACE)
        self.api.watchers.append(self._tell)

    def now(self) -> datetime:
        return START + timedelta(seconds=self.seconds)

    async def start(self) -> None:
        """Start an operator that knows nothing but what the API server holds."""
        cache = Cache()
        self._asked = Asked(self.nodes)
        self._engine = Engine(cache, self.now, WorkQueue(lambda: self.seconds))
        apply = Apply(_Mortal(self), cache, Notes(self.api, cache, self.now))
        settings = Settings("worker", "router", "evaluator")
        self._look = Reconcile(cache, self._asked, apply, settings, self.now)
        for kind in WATCHED:
            for body in (await self.api.list_all(kind, None, brief=False))[0]:
                self._engine.add(cache.put(kind, body))

    async def until_quiet(self, at_most: int = 400) -> None:
        """Take turns until nobody has anything to do, also later."""
        for _ in range(at_most):
            if await self._turn():
                self.seconds += 0.25
                continue
            at = self._engine.queue.next_deadline()
            if at is None:
                return
            self.seconds = max(self.seconds, at)
        raise AssertionError("it never ends")

    async def _turn(self) -> bool:
        """Let everybody act once; return whether anything came of it."""
        self.turn()
        before = self._state()
        await self.nodes.step()
        news = await self._asked.ask(self.now())
        self._engine.add(news)
        try:
            while (key := self._engine.queue.poll()) is not None:
                await self._engine.step(key, self._look)
        except Killed:
            self.deaths += 1
            await self.start()
        return bool(news) or self._state() != before

    def _state(self) -> object:
        return self.api.version, self.deaths, dict(self._asked.targets)

    def _tell(self, kind: Kind, event: str, body: Body) -> None:
        if hasattr(self, "_engine"):
            self._engine.seen(kind, event, body)
        if kind == ROUTING_TABLE and event != "DELETED":
            self.on_table(body)


@dataclass(slots=True)
class _Mortal:
    """A `Writer` that dies after the write that is the play's `kill_after`, and stays dead."""

    play: Play
    dead: bool = False

    async def create(self, kind: Kind, body: Body) -> Body:
        return await self._do("create", kind, self.play.api.create(kind, body))

    async def replace(self, kind: Kind, body: Body) -> Body:
        return await self._do("replace", kind, self.play.api.replace(kind, body))

    async def apply(self, kind: Kind, body: Body) -> Body:
        return await self._do("apply", kind, self.play.api.apply(kind, body))

    async def merge(
        self, kind: Kind, namespace: str, name: str, patch: Any, subresource: str = ""
    ) -> Body:
        done = self.play.api.merge(kind, namespace, name, patch, subresource)
        return await self._do(f"merge {subresource}".strip(), kind, done)

    async def delete(self, kind: Kind, body: Body) -> None:
        await self._do("delete", kind, self.play.api.delete(kind, body))

    async def _do(self, verb: str, kind: Kind, write: Coroutine[Any, Any, T]) -> T:
        if self.dead:
            write.close()
            raise Killed
        if self.play.refuse is not None and len(self.play.writes) == self.play.refuse_after:
            write.close()
            refusal, self.play.refuse = self.play.refuse, None
            raise refusal
        answer = await write
        self.play.writes.append(f"{verb} {kind.name}")
        if len(self.play.writes) == self.play.kill_after:
            self.dead = True
            raise Killed
        return answer
