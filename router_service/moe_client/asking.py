"""One request on its way: sent, waited for, sent again elsewhere, until the answer or the deadline.

It carries out what `retry` decides; what is in the message is not its matter.
"""

from __future__ import annotations

import asyncio
import random

from moe_client import retry
from moe_client.errors import MoeError, from_number
from moe_client.inside import InsidePipe
from moe_client.messages import Make
from moe_client.pipe import Answered, Event, Pipe
from moe_client.retry import Fail, Health, Progress, Refused, Send
from moe_client.router import Router
from moeops.v1.router_pb2 import RowsResponse


class Request:
    """One request from its first message to its answer."""

    def __init__(
        self,
        routers: dict[str, Router],
        rpc: str,
        make: Make,
        session: str,
        timeout_s: float,
    ) -> None:
        self.progress = Progress(session)
        self._routers = routers
        self._rpc = rpc
        self._make = make
        self._loop = asyncio.get_running_loop()
        self._timeout_s = timeout_s
        self._deadline = self._loop.time() + timeout_s
        self._events: asyncio.Queue[tuple[int, Event] | MoeError] = asyncio.Queue()
        self._timers = [self._loop.call_at(self._deadline, self._expire)]
        self._attempts: list[tuple[Pipe | InsidePipe, int]] = []

    async def run(self) -> RowsResponse:
        """Return the first good answer. Raises MoeError."""
        self.progress, send = retry.first(self.progress, self._health())
        self._send(send.address)
        left: set[int] = set()  # attempts that were given up, though they may still be answered
        while not isinstance(told := await self._events.get(), MoeError):
            attempt, event = told
            if isinstance(event, Answered) and not event.response.HasField("failure"):
                return event.response
            if attempt in left:
                continue
            left.add(attempt)
            setback = _refusal(event) if isinstance(event, Answered) else event
            self.progress, step = retry.after(
                self.progress, setback, self._health(), random.random()
            )
            if isinstance(step, Fail):
                raise step.error
            self._schedule(step)
        raise told

    def fail(self, error: MoeError) -> None:
        """Give up, whatever is under way."""
        self._events.put_nowait(error)

    def end(self) -> None:
        """Whatever still comes is of no interest."""
        for timer in self._timers:
            timer.cancel()
        for pipe, request_id in self._attempts:
            pipe.forget(request_id)

    def _health(self) -> dict[str, Health]:
        return {address: router.health for address, router in self._routers.items()}

    def _expire(self) -> None:
        self.fail(retry.expired(self.progress, self._timeout_s))

    def _schedule(self, step: Send) -> None:
        if step.delay_s == 0:
            self._send(step.address)
        else:
            self._timers.append(self._loop.call_later(step.delay_s, self._send, step.address))

    def _send(self, address: str) -> None:
        left_ms = max(int((self._deadline - self._loop.time()) * 1000), 1)
        pipe = self._routers[address].pipe(self._rpc)
        attempt = len(self._attempts)

        def tell(event: Event) -> None:
            self._events.put_nowait((attempt, event))

        self._attempts.append((pipe, pipe.send(self._make, left_ms, tell)))


def _refusal(event: Answered) -> Refused:
    failure = event.response.failure
    error = from_number(failure.code, failure.message, event.response.epoch)
    return Refused(event.address, error, failure.retry_after_ms / 1000)
