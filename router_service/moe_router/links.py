"""Keeps a link to every worker there is, and knows which of them can be asked for what.

Who the workers are comes from a worker source. One that is no longer listed keeps its link for as
long as that lives: the list says whom to try, the link says who is there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping

from moe_core.log import tell
from moe_router.flight import Waiter
from moe_router.hedge import HedgeBudget
from moe_router.link import Link, State
from moe_router.message import Message, replaceable
from moe_router.outlier import LOOK_S, Standing, look, peers_of
from moe_router.pulse import TICK_S, widespread
from moe_router.replica import Routable
from moe_router.trust import Trust


class Links:
    """All links of a router. Everything happens on one event loop."""

    def __init__(self, clock: Callable[[], float], trust: Trust | None = None) -> None:
        self._clock, self._trust = clock, trust
        self._links: dict[str, Link] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._listed: frozenset[str] = frozenset()
        self._load: dict[str, int] = {}
        self._lateness: dict[str, int] = {}
        self._routable: Routable | None = None
        self._peers: dict[str, frozenset[str]] | None = None
        self._standings: dict[str, Standing] = {}
        self._looked_s = clock()
        self._hedges = HedgeBudget()
        self.hedged = 0
        self._listeners: list[Callable[[], None]] = []
        self.settled = asyncio.Event()  # from when it is known who of the first list is there

    @property
    def all(self) -> Collection[Link]:
        return self._links.values()

    @property
    def load(self) -> Mapping[str, int]:
        return self._load

    @property
    def lateness(self) -> Mapping[str, int]:
        return self._lateness

    @property
    def routable(self) -> Routable:
        if self._routable is None:
            offers = [link.offer for link in self._links.values()]
            self._routable = Routable.of(offers, self.outliers)
        return self._routable

    @property
    def outliers(self) -> list[str]:
        """Those that are ejected, in the order of their return."""
        until = {a: s.until_s for a, s in self._standings.items() if s.until_s is not None}
        return sorted(until, key=lambda address: until[address])

    def set_addresses(self, addresses: Collection[str]) -> None:
        """Link to these workers; must be called on the event loop."""
        listed = frozenset(addresses)
        if listed != self._listed:
            tell("workers", listed=len(listed))
        self._listed = listed
        for address in sorted(self._listed - self._links.keys()):
            link = self._links[address] = Link(address, self, self._clock, self._trust)
            self._tasks[address] = asyncio.create_task(link.keep())
        self._check_settled()

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call `listener` soon after what workers offer has changed."""
        self._listeners.append(listener)

    def send(self, message: Message, waiter: Waiter) -> bool:
        """Send to the message's worker; False where that cannot be done now."""
        link = self._links.get(message.worker)
        sent = link is not None and link.send(message, waiter)
        if sent:
            self._hedges.earn()
        return sent

    async def watch(self) -> None:
        """Tick until cancelled, then close all links."""
        try:
            while True:
                await asyncio.sleep(TICK_S)
                self._tick()
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _check_settled(self) -> None:
        if not self.settled.is_set() and all(link.tried for link in self._links.values()):
            self.settled.set()

    def _tick(self) -> None:
        now_s = self._clock()
        for link in list(self._links.values()):
            link.tick(now_s)
            if link.state is State.CONNECTING and link.address not in self._listed:
                self._tasks.pop(link.address).cancel()
                del self._links[link.address]
                self._load.pop(link.address, None)
                self._lateness.pop(link.address, None)
        if now_s - self._looked_s >= LOOK_S:
            self._look(now_s)
        up = [link for link in self._links.values() if link.state is not State.CONNECTING]
        silent = [link for link in up if link.doubted]
        for link in silent:
            link.doubt(self.routable, widespread=widespread(len(silent), len(up)))
        for link in up:
            self._hedge(link, now_s)

    def _hedge(self, link: Link, now_s: float) -> None:
        """Have what takes long tried elsewhere as well, as far as the budget goes."""
        for attempt in link.late(now_s):
            if not self._hedges.allows:
                return
            if replaceable(attempt.message, self.routable) and attempt.waiter.late(attempt.message):
                attempt.late_s = float("inf")  # once is enough
                self._hedges.spend()
                self.hedged += 1

    def _look(self, now_s: float) -> None:
        """Judge who is an outlier."""
        if self._peers is None:
            self._peers = peers_of({x.address: x.offer.layers for x in self._links.values()})
        periods = {x.address: x.take_period(self._looked_s) for x in self._links.values()}
        before, self._looked_s = self._standings, now_s
        self._standings = look(before, periods, self._peers, now_s)
        for address, standing in self._standings.items():
            was = before.get(address)
            if standing.ejected == (was is not None and was.ejected):
                continue
            self._routable = None
            worker = self._links[address].inventory.worker
            if standing.ejected:
                seconds, why = standing.lasting_s, standing.reason
                tell("worker_ejected", address=address, worker=worker, s=seconds, reason=why)
            else:
                tell("worker_back", address=address, worker=worker)

    def offer_changed(self, link: Link) -> None:
        self._routable = self._peers = None
        self._check_settled()
        for listener in self._listeners:
            asyncio.get_running_loop().call_soon(listener)

    def load_changed(self, link: Link) -> None:
        self._load[link.address] = link.load
        self._lateness[link.address] = link.late_rows
