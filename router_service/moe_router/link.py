"""A persistent link to one worker: connects, and again, sends attempts and hands out answers.

It never decides where rows go; it tells its owner when what it offers changes. Attempts have ids of
this link's own: an answer to an attempt that was given up, or a second one, is dropped and counted.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Protocol

import numpy as np

from moe_core.frames import FIRST_PROTOCOL, PROTOCOL, encode
from moe_core.log import tell
from moe_router.conduct import Conduct, Period
from moe_router.connect import connect
from moe_router.connection import Connection, compute_frame
from moe_router.flight import Waiter
from moe_router.hedge import Pace
from moe_router.ladder import Cause
from moe_router.lateness import Lateness
from moe_router.message import Message
from moe_router.pulse import Pulse
from moe_router.replica import Offer, Routable
from moe_router.trust import Trust
from moe_router.under_way import Attempt, UnderWay
from moeops.v1.link_pb2 import Heartbeat, Hello, Inventory, LinkFrame, Result

FIRST_BACKOFF_S = 0.05
LONGEST_BACKOFF_S = 1.0


class State(StrEnum):
    """Of a link. Only a LIVE one gets rows; a DRAINING one finishes what it has."""

    CONNECTING = "Connecting"
    LIVE = "Live"
    SILENT = "Silent"
    DRAINING = "Draining"


class Owner(Protocol):
    """Who keeps the links."""

    def offer_changed(self, link: Link) -> None: ...

    def load_changed(self, link: Link) -> None: ...


class Link:
    """The link to the worker at `address` (`host:port`, with `tls:` before it, or `unix:/path`)."""

    def __init__(
        self,
        address: str,
        owner: Owner,
        clock: Callable[[], float],
        trust: Trust | None = None,
    ) -> None:
        self.address = address
        self._trust = trust
        self._refusal = ""  # told once
        self.inventory = Inventory()
        self.heartbeat = Heartbeat()
        self.rows = 0
        self.dropped = 0
        self.tried = False  # whether it is known by now if there is anybody
        self._lost = False  # silent for so long that nothing more is expected
        self._owner, self._clock = owner, clock
        self._conduct, self._pace, self._lateness = Conduct(), Pace(), Lateness()
        self._under_way = UnderWay()
        self._protocol = FIRST_PROTOCOL
        self._transport: asyncio.Transport | None = None
        self._pulse = Pulse()
        self._greeted = False
        self._served = False
        self._closed = asyncio.Event()

    @property
    def state(self) -> State:
        if not self._greeted:
            return State.CONNECTING
        if self._lost:
            return State.SILENT
        return State.DRAINING if self.inventory.draining else State.LIVE

    @property
    def doubted(self) -> bool:
        """Silent, for the moment or for longer."""
        return self._greeted and self._pulse.silent

    @property
    def offer(self) -> Offer:
        """What it may be asked now: nothing unless it is LIVE."""
        layers: Mapping[str, frozenset[int]] = {}
        if self.state is State.LIVE:
            layers = {s.sha256: frozenset(s.layers) for s in self.inventory.servable}
        return Offer(self.address, layers, self.doubted)

    @property
    def load(self) -> int:
        """Rows that wait there, as far as known: by its word, or only those of this router."""
        return max(self._under_way.rows, self.heartbeat.queued_rows)

    @property
    def late_rows(self) -> int:
        """Rows that it could have computed in the time by which its answers are late."""
        beat = self.heartbeat
        return self._lateness.rows(self._clock(), beat.rows, beat.busy_us)

    @property
    def idle(self) -> bool:
        return not self._under_way

    async def keep(self) -> None:
        """Connect, and again after each loss, until cancelled."""
        backoff_s = FIRST_BACKOFF_S
        try:
            while True:
                if await self._connect():
                    await self._closed.wait()
                    if self._served:
                        backoff_s = FIRST_BACKOFF_S
                await asyncio.sleep(backoff_s)
                backoff_s = min(2 * backoff_s, LONGEST_BACKOFF_S)
        finally:
            self._close()
            self._down()

    async def _connect(self) -> bool:
        self._closed, self._served = asyncio.Event(), False
        try:
            await connect(self.address, self._trust, lambda: Connection(self))
        except (OSError, TimeoutError) as error:
            if isinstance(error, ssl.SSLError):
                self._refused(str(error))
            self.tried = True
            self._owner.offer_changed(self)
            return False
        return True

    def _refused(self, reason: str) -> None:
        if reason != self._refusal:
            tell("link_refused", address=self.address, reason=reason)
        self._refusal = reason

    def send(self, message: Message, waiter: Waiter) -> bool:
        """Send an attempt; False where the link is not up."""
        if self._transport is None or self._transport.is_closing():
            return False
        rows = len(message.rows)
        number = self._under_way.add(message, waiter, self._pace.patience_s(rows))
        self.rows += rows
        body = np.ascontiguousarray(message.rows).view(np.uint8).data.cast("B")
        header = compute_frame(message, number)
        # At once, or the worker is woken for the header alone.
        self._transport.writelines((encode(header, body, self._protocol), body))
        self._owner.load_changed(self)
        return True

    def take_period(self, since_s: float) -> Period:
        """Return how the worker behaved since then, when this was asked last."""
        pending = self._under_way.sent_by(since_s)
        return self._conduct.take(self.inventory.incarnation, self.heartbeat.rows, pending)

    def tick(self, now_s: float) -> None:
        """Notice silence and attempts whose time is over."""
        if self._transport is None:
            return
        if self._pulse.tick() and self._greeted:
            self._owner.offer_changed(self)
        if self._pulse.dead or (self._pulse.old and not self._greeted):
            self._close()
        for number, attempt in self._under_way.expired(now_s):
            self._conduct.expired(attempt.message)
            self._lateness.answered(attempt.message.timeout_s, 0.0, now_s)
            self._fail(number, Cause.DEADLINE)

    def late(self, now_s: float) -> list[Attempt]:
        """Return the attempts that take longer than this worker's nearly always do."""
        return self._under_way.late(now_s)

    def doubt(self, routable: Routable, *, widespread: bool) -> None:
        """Of a silent link: give up what others can do, and everything when it is overdue."""
        if self._pulse.overdue and not self._lost and not widespread:
            tell("link_silent", address=self.address, worker=self.inventory.worker)
            self._lost = True
            self._give_up(Cause.BROKEN)
        for number in self._under_way.replaceable(routable):
            self._fail(number, Cause.BROKEN)

    def connected(self, transport: asyncio.Transport) -> None:
        self._transport, self._pulse, self._lateness = transport, Pulse(), Lateness()
        self._protocol = FIRST_PROTOCOL
        raw: socket.socket | None = transport.get_extra_info("socket")
        if raw is not None and raw.family != socket.AF_UNIX:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def received(self, header: LinkFrame, body: memoryview) -> None:
        match header.WhichOneof("kind"):
            case "heartbeat":
                self.heartbeat = header.heartbeat
                self._owner.load_changed(self)
            case "inventory":
                self._take_inventory(header.inventory)
            case "result":
                self._take_result(header.result, body)
            case _:
                pass  # of a later protocol, or not for a router

    def beat(self) -> None:
        """Take note of bytes, also of a frame that is not whole yet."""
        if self._pulse.beat() and self._greeted:
            if self._lost:
                tell("link_speaks_again", address=self.address, worker=self.inventory.worker)
            self._lost = False
            self._owner.offer_changed(self)

    def disconnected(self) -> None:
        if self._under_way:
            self._conduct.broken()
        self._down()
        self._closed.set()

    def _take_inventory(self, inventory: Inventory) -> None:
        first, self._greeted, self._served = not self._greeted, True, True
        self.tried = True
        if first and inventory.protocol > FIRST_PROTOCOL:
            self._say_hello(inventory.protocol)
        elif inventory == self.inventory and not first:
            return  # repeated after the Hello
        self.inventory = inventory
        tell(
            "link_up" if first else "inventory",
            address=self.address,
            worker=inventory.worker,
            artifacts=len(inventory.servable),
            draining=inventory.draining,
        )
        self._owner.offer_changed(self)

    def _say_hello(self, known: int) -> None:
        """Speak the newest protocol that both know from now on."""
        self._protocol = min(known, PROTOCOL)
        if self._transport is not None:
            hello = LinkFrame(hello=Hello(protocol=PROTOCOL))
            self._transport.write(encode(hello, protocol=self._protocol))

    def _take_result(self, result: Result, body: memoryview) -> None:
        attempt = self._under_way.take(result.attempt)
        if attempt is None:
            self.dropped += 1
            return
        message = attempt.message
        now_s = self._clock()
        took_s, explained_us = now_s - message.sent_s, result.queue_us + result.compute_us
        self._conduct.answered(message, result, len(body), took_s)
        self._pace.took(len(message.rows), took_s)
        self._lateness.answered(took_s, explained_us / 1e6, now_s)
        self._owner.load_changed(self)
        attempt.waiter.answered(message, result, body)

    def _fail(self, number: int, cause: Cause) -> None:
        attempt = self._under_way.take(number)
        if attempt is not None:
            self._owner.load_changed(self)
            attempt.waiter.failed(attempt.message, cause)

    def _give_up(self, cause: Cause) -> None:
        """Fail what is under way; first of all nobody is sent here any more."""
        attempts = self._under_way.take_all()
        self._owner.offer_changed(self)
        for attempt in attempts:
            attempt.waiter.failed(attempt.message, cause)

    def _down(self) -> None:
        if self._greeted:
            tell("link_down", address=self.address, worker=self.inventory.worker)
        self._transport, self._greeted, self.heartbeat = None, False, Heartbeat()
        self._lost = False
        self._give_up(Cause.BROKEN)
        self._owner.load_changed(self)

    def _close(self) -> None:
        if self._transport is not None:
            self._transport.abort()
