"""Asks routers and workers how they are, and keeps what they said last.

One task for each mixture asks all its routers, and those of its workers that do not serve yet, at
the pace that the last plan found right; what changed is told, so that a plan follows. A program
that does not answer keeps its last report, with the time it is from, until its pod is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from logging import DEBUG
from typing import Protocol

from moe_core.log import tell, tell_error
from moe_operator.cache import Key
from moe_operator.router_report import RouterReport
from moe_operator.world import WorkerReport


class Asker(Protocol):
    """Asks one program over the network. Both raise Unanswered."""

    async def router(
        self, address: str, digests: tuple[str, ...], watched: tuple[str, ...]
    ) -> RouterReport:
        """Ask about versions under rollout, and about stable ones that are watched."""
        ...

    async def worker(self, address: str) -> tuple[WorkerReport, ...]: ...

    async def forget(self, addresses: frozenset[str]) -> None:
        """Close what is open to all addresses but these."""
        ...


@dataclass(frozen=True, slots=True)
class Targets:
    """Whom to ask, by pod name and address, about which versions, and how often.

    `watched` are stable versions that are looked at, of gates and experts, on trial or not.
    """

    routers: Mapping[str, str] = field(default_factory=dict)
    workers: Mapping[str, str] = field(default_factory=dict)
    digests: tuple[str, ...] = ()
    every_s: float = 10.0
    watched: tuple[str, ...] = ()

    @property
    def addresses(self) -> frozenset[str]:
        return frozenset([*self.routers.values(), *self.workers.values()])


class Follower(Protocol):
    """Knows what the programs of each mixture said last, and whom to ask."""

    def routers(self, key: Key) -> tuple[RouterReport, ...]: ...

    def workers(self, key: Key) -> tuple[WorkerReport, ...]: ...

    def follow(self, key: Key, targets: Targets) -> None:
        """Ask these from now on; at once where they or their pace are new."""
        ...

    async def leave(self, key: Key) -> None:
        """Ask nobody of a mixture any more, and forget what was said."""
        ...


class Unanswered(Exception):
    """A program did not answer in time."""


@dataclass(slots=True)
class _Mixture:
    """One mixture's targets and what they said."""

    targets: Targets = field(default_factory=Targets)
    routers: dict[str, RouterReport] = field(default_factory=dict)
    workers: dict[str, tuple[WorkerReport, ...]] = field(default_factory=dict)
    sooner: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None


def _unheard(key: Key, reports: Iterable[RouterReport], now: datetime) -> bool:
    return False


class Reports:
    """A `Follower` that asks in the background; `changed` is called where one says what is new.

    `heard` gets what routers said each time all were asked, and tells whether that is news in
    itself: loads change all the time.
    """

    def __init__(
        self,
        asker: Asker,
        changed: Callable[[Key], None],
        now: Callable[[], datetime],
        heard: Callable[[Key, Iterable[RouterReport], datetime], bool] = _unheard,
    ) -> None:
        self._asker = asker
        self._changed = changed
        self._now = now
        self._heard = heard
        self._mixtures: dict[Key, _Mixture] = {}

    def routers(self, key: Key) -> tuple[RouterReport, ...]:
        known = self._mixtures.get(key)
        return () if known is None else tuple(known.routers.values())

    def workers(self, key: Key) -> tuple[WorkerReport, ...]:
        known = self._mixtures.get(key)
        return () if known is None else tuple(r for said in known.workers.values() for r in said)

    def follow(self, key: Key, targets: Targets) -> None:
        """Ask these from now on; at once where they or their pace are new."""
        known = self._mixtures.setdefault(key, _Mixture())
        before, known.targets = known.targets, targets
        known.routers = {p: r for p, r in known.routers.items() if p in targets.routers}
        known.workers = {p: r for p, r in known.workers.items() if p in targets.workers}
        if before != targets:
            known.sooner.set()
        if known.task is None:
            known.task = asyncio.create_task(self._follow(key, known), name=f"reports of {key}")

    async def leave(self, key: Key) -> None:
        """Ask nobody of a mixture any more, and forget what was said."""
        known = self._mixtures.pop(key, None)
        if known is not None and known.task is not None:
            known.task.cancel()
            await asyncio.gather(known.task, return_exceptions=True)
            await self._asker.forget(self._addresses())

    async def close(self) -> None:
        for key in list(self._mixtures):
            await self.leave(key)

    async def _follow(self, key: Key, known: _Mixture) -> None:
        while True:
            known.sooner.clear()
            try:
                await self._ask_all(key, known)
                if self._heard(key, known.routers.values(), self._now()):
                    self._changed(key)
                await self._asker.forget(self._addresses())
            except Exception:
                tell_error("reports_failed", mixture=str(key))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(known.targets.every_s):
                    await known.sooner.wait()

    async def _ask_all(self, key: Key, known: _Mixture) -> None:
        """Ask everybody at once; what one says counts before another has run out of time."""
        targets = known.targets
        routers = [
            self._ask_router(key, known, pod, address, targets)
            for pod, address in targets.routers.items()
        ]
        workers = [
            self._ask_worker(key, known, pod, address) for pod, address in targets.workers.items()
        ]
        await asyncio.gather(*routers, *workers)

    async def _ask_router(
        self, key: Key, known: _Mixture, pod: str, address: str, targets: Targets
    ) -> None:
        try:
            said = await self._asker.router(address, targets.digests, targets.watched)
        except Unanswered as error:
            tell("router_unheard", level=DEBUG, router=pod, reason=error)
            return
        if known.targets.routers.get(pod) != address:
            return  # gone meanwhile
        before = known.routers.get(pod)
        had_table = said.may_route or (before is not None and before.may_route)
        report = replace(said, pod=pod, at=self._now(), had_table=had_table)
        known.routers[pod] = report
        if before is None or replace(before, at=report.at) != report:
            self._changed(key)

    async def _ask_worker(self, key: Key, known: _Mixture, pod: str, address: str) -> None:
        try:
            said = await self._asker.worker(address)
        except Unanswered as error:
            tell("worker_unheard", level=DEBUG, worker=pod, reason=error)
            return
        if known.targets.workers.get(pod) != address:
            return  # gone meanwhile, or it serves now
        before, reports = known.workers.get(pod), tuple(replace(r, pod=pod) for r in said)
        known.workers[pod] = reports
        if before != reports:
            self._changed(key)

    def _addresses(self) -> frozenset[str]:
        return frozenset().union(*(m.targets.addresses for m in self._mixtures.values()))
