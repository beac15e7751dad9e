"""Sends what answers were worth to the routers, now and then, beside all requests.

Nobody waits for it: what no router takes is counted and dropped, session by session. A session's
reports go to one router, chosen as its requests' is, because each router counts its sessions by
itself; where that one is gone, or knows too old a table, they go to the next.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final

import grpc

from moe_client.retry import Health, choose
from moe_client.worth import Ledger, Worth
from moeops.v1.router_pb2 import ReportOutcomeRequest, ReportOutcomeResponse, SessionOutcome

PERIOD_S = 1.0
TIMEOUT_S = 1.0
MAX_OUTCOMES = 512
"""In one message."""

_UNAVAILABLE: Final[int] = grpc.StatusCode.UNAVAILABLE.value[0]

Send = Callable[[str, ReportOutcomeRequest, float], Awaitable[ReportOutcomeResponse]]
"""(address, message, seconds); raises grpc.aio.AioRpcError."""


class Reporter:
    """The reports of one client, on its event loop. `sent` and `dropped` count them."""

    def __init__(
        self, send: Send, health: Callable[[], Mapping[str, Health]], period_s: float = PERIOD_S
    ) -> None:
        self.sent = 0
        self.dropped = 0
        self._send, self._health, self._period_s = send, health, period_s
        self._ledger = Ledger()
        self._hurry = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def add(self, mixture: str, worth: Worth) -> None:
        """Take it in; it is sent within `period_s`."""
        if not self._ledger.add(worth):
            self.dropped += 1
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._later(mixture))

    async def close(self) -> None:
        """Send what waits, for which there is one second."""
        if self._task is not None:
            self._hurry.set()
            await asyncio.wait([self._task], timeout=TIMEOUT_S)
            self._task.cancel()

    async def _later(self, mixture: str) -> None:
        """Send what waits after each period, until there was one in which nothing came."""
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._hurry.wait(), self._period_s)
            if not (taken := self._ledger.take()):
                return
            await self._flush(mixture, taken, frozenset())

    async def _flush(
        self, mixture: str, outcomes: Sequence[SessionOutcome], tried: frozenset[str]
    ) -> None:
        health = self._health()
        if tried >= health.keys():
            self.dropped += len(outcomes)
            return
        shares: defaultdict[str, list[SessionOutcome]] = defaultdict(list)
        for outcome in outcomes:
            shares[choose(health, outcome.session, tried)].append(outcome)
        for address, share in shares.items():
            for start in range(0, len(share), MAX_OUTCOMES):
                part = share[start : start + MAX_OUTCOMES]
                message = ReportOutcomeRequest(mixture=mixture, outcomes=part)
                if left := await self._give(address, message):
                    await self._flush(mixture, left, tried | {address})

    async def _give(self, address: str, message: ReportOutcomeRequest) -> Sequence[SessionOutcome]:
        """Send to one router; return what another one may take. The rest is taken or dropped."""
        outcomes = message.outcomes
        try:
            said = await self._send(address, message, TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNAVAILABLE:
                return outcomes
            self.dropped += len(outcomes)
            return ()
        later = [outcomes[one.index] for one in said.refused if one.failure.code == _UNAVAILABLE]
        self.sent += len(outcomes) - len(said.refused)
        self.dropped += len(said.refused) - len(later)
        return later
