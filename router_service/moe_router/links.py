"""Keeps a link to every worker there is, and knows which of them can be asked for what.

Who the workers are comes from a worker source. One that is no longer listed keeps its link for as
long as that lives: the list says whom to try, the link says who is there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping

from moe_router.events import tell
from moe_router.flight import Waiter
from moe_router.link import Link, State
from moe_router.message import Message
from moe_router.pulse import TICK_S, widespread
from moe_router.replica import Routable


class Links:
    """All links of a router. Everything happens on one event loop."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._links: dict[str, Link] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._listed: frozenset[str] = frozenset()
        self._load: dict[str, int] = {}
        self._routable: Routable | None = None
        self.settled = asyncio.Event()  # from when it is known who of the first list is there

    @property
    def all(self) -> Collection[Link]:
        return self._links.values()

    @property
    def load(self) -> Mapping[str, int]:
        return self._load

    @property
    def routable(self) -> Routable:
        if self._routable is None:
            self._routable = Routable.of(link.offer for link in self._links.values())
        return self._routable

    def set_addresses(self, addresses: Collection[str]) -> None:
        """Link to these workers; must be called on the event loop."""
        listed = frozenset(addresses)
        if listed != self._listed:
            tell("workers", listed=len(listed))
        self._listed = listed
        for address in sorted(self._listed - self._links.keys()):
            link = self._links[address] = Link(address, self)
            self._tasks[address] = asyncio.create_task(link.keep())
        self._check_settled()

    def send(self, message: Message, waiter: Waiter) -> bool:
        """Send to the message's worker; False where that cannot be done now."""
        link = self._links.get(message.worker)
        return link is not None and link.send(message, waiter)

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
        up = [link for link in self._links.values() if link.state is not State.CONNECTING]
        silent = [link for link in up if link.doubted]
        for link in silent:
            link.doubt(self.routable, widespread=widespread(len(silent), len(up)))

    def offer_changed(self, link: Link) -> None:
        self._routable = None
        self._check_settled()

    def load_changed(self, link: Link) -> None:
        self._load[link.address] = link.load
