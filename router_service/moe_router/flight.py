"""Carries one exchange's messages to the workers and their answers back, until it is finished.

It knows when and where to send, and nothing of what is said: that is the exchange's.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from typing import Protocol

from moe_router.exchange import Exchange, Tally
from moe_router.ladder import Cause
from moe_router.message import Message, Outlook
from moe_router.replica import Routable
from moeops.v1.link_pb2 import Result

Step = Callable[[Outlook, Tally], list[Message]]  # of an exchange: what is to be sent by it


class Waiter(Protocol):
    """Who sent a message: told once what came of it, and before, perhaps, that it takes long.

    Called from the event loop.
    """

    def answered(self, message: Message, result: Result, body: memoryview) -> None: ...

    def failed(self, message: Message, cause: Cause) -> None: ...

    def late(self, message: Message) -> bool:
        """Ask somebody else as well; whether that was done."""
        ...


class Links(Protocol):
    """The way to the workers."""

    @property
    def routable(self) -> Routable: ...

    @property
    def load(self) -> Mapping[str, int]: ...

    @property
    def lateness(self) -> Mapping[str, int]: ...

    def send(self, message: Message, waiter: Waiter) -> bool:
        """Send; the waiter is called once, later, with what came of it. False: not sent."""
        ...


class Bells(Protocol):
    """Calls those who listen when workers or the table change."""

    def listen(self, bell: Callable[[], None]) -> None: ...

    def forget(self, bell: Callable[[], None]) -> None: ...


class Flight:
    """Carries an exchange's messages to the links and their answers back."""

    def __init__(
        self,
        exchange: Exchange,
        links: Links,
        outlook: Callable[[], Outlook],
        tally: Tally,
        bells: Bells,
    ) -> None:
        self._exchange, self._links = exchange, links
        self._outlook, self._tally, self._bells = outlook, tally, bells
        self._look: asyncio.TimerHandle | None = None
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def finish(self, first: Step) -> None:
        """Take the first step, `begin` or `resume`, and wait until the exchange has its answer."""
        try:
            self._send(first(self._outlook(), self._tally))
            await self._done
        finally:
            if self._look is not None:
                self._look.cancel()
                self._bells.forget(self._resume)
                self._exchange.abandon(self._outlook(), self._tally)

    def answered(self, message: Message, result: Result, body: memoryview) -> None:
        if not self._done.done():
            self._go(lambda o, t: self._exchange.answered(message, result, body, o, t))

    def failed(self, message: Message, cause: Cause) -> None:
        if not self._done.done():
            self._go(lambda o, t: self._exchange.failed(message, cause, o, t))

    def late(self, message: Message) -> bool:
        return not self._done.done() and self._go(lambda o, t: self._exchange.late(message, o, t))

    def _go(self, step: Step) -> bool:
        """Take a step of the exchange; whether there is something to send by it."""
        try:
            messages = step(self._outlook(), self._tally)
            self._send(messages)
        except Exception as error:
            self._done.set_exception(error)
            return False
        return bool(messages)

    def _send(self, messages: list[Message]) -> None:
        unsent = deque(messages)
        while unsent:
            message = unsent.popleft()
            if not self._links.send(message, self):
                outlook = self._outlook()
                unsent += self._exchange.failed(message, Cause.BROKEN, outlook, self._tally)
        if self._exchange.finished and not self._done.done():
            self._done.set_result(None)
        elif (looks_s := self._exchange.looks_s) is not None:
            self._look_at(looks_s)

    def _look_at(self, looks_s: float) -> None:
        """Look again then, or when workers or the table change: something waits for an expert."""
        if self._look is None:
            self._bells.listen(self._resume)
        else:
            self._look.cancel()
        delay_s = max(0.0, looks_s - self._outlook().now_s)
        self._look = asyncio.get_running_loop().call_later(delay_s, self._resume)

    def _resume(self) -> None:
        if not self._done.done():
            self._go(lambda o, t: self._exchange.resume(o, t))
