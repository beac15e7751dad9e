"""The client of a mixture's routers: hidden states in, hidden states out, in numpy.

Holds the connections, and the requests on their way (`asking`) over them. Free of torch and
transformers, so that load generators and other runtimes can use it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import grpc

from moe_client import retry
from moe_client.asking import Request
from moe_client.channel import MAX_MESSAGE_BYTES, connect
from moe_client.errors import Closed, InvalidRequest, from_code
from moe_client.messages import (
    Answer,
    Choice,
    Encode,
    Rows,
    encode_dispatch,
    encode_route,
    read_answer,
)
from moe_client.mixture import Mixture
from moe_client.reporter import Reporter
from moe_client.retry import Health
from moe_client.router import ABSENT, PROBE_TIMEOUT_S, Router
from moe_client.worth import Worth
from moeops.v1.router_pb2 import RowsResponse

if TYPE_CHECKING:
    from moe_client.async_model import AsyncModel

DEFAULT_TIMEOUT_S = 10.0
_MARGIN_BYTES = 1 << 20


def attach(model: Any, addresses: str | Sequence[str], **options: Any) -> AsyncModel:
    """Attach a transformers model for `async with`; options and errors are `moe_client.attach`'s.

    The value is called and its `generate` is awaited as the model's own are called.
    """
    from moe_client.async_model import AsyncModel
    from moe_client.attachment import attach as attach_now

    return AsyncModel(model, lambda: attach_now(model, addresses, **options))


class RouterClient:
    """Asks the routers of one mixture; any number of requests at once, from one event loop.

    `addresses` are `host:port` or `unix:/path`; a router that is silent for 0.2 s, or gone, is
    left for another. `mixture` may be empty: then it is the one that the routers serve.
    Every request ends within its time-out: with an answer, or with a MoeError.
    """

    def __init__(
        self,
        addresses: str | Sequence[str],
        *,
        mixture: str = "",
        timeout_s: float = DEFAULT_TIMEOUT_S,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        names = [addresses] if isinstance(addresses, str) else list(addresses)
        if not names:
            raise ValueError("addresses is empty; it must name at least one router")
        if timeout_s <= 0:
            raise ValueError(f"timeout_s is {timeout_s}; it must be more than 0")
        self.mixture = mixture
        self.timeout_s = timeout_s
        self.retries = 0
        self._routers = {
            name: Router(name, mixture, lambda address: connect(address, credentials))
            for name in names
        }
        self._reporter = Reporter(
            lambda address, *rest: self._routers[address].report(*rest), lambda: self.health
        )
        self._requests: set[Request] = set()
        self._closed = False

    @property
    def health(self) -> dict[str, Health]:
        """What is known of each router."""
        return {address: router.health for address, router in self._routers.items()}

    async def describe(self, *, timeout_s: float | None = None) -> Mixture:
        """Return what the routers serve. Raises MoeError."""
        now = asyncio.get_running_loop().time()
        served = await self._describe(now + (timeout_s or self.timeout_s))
        self.mixture = self.mixture or served.name
        return served

    async def dispatch(
        self, rows: Rows, choice: Choice, *, trunk_sha256: str = "", timeout_s: float | None = None
    ) -> Answer:
        """Return the experts' combined answer to rows whose experts are chosen. Raises MoeError."""
        encode = encode_dispatch(await self._name(), trunk_sha256, rows, choice)
        response = await self._ask("Dispatch", encode, rows, timeout_s or self.timeout_s)
        return read_answer(response, rows)

    async def route(
        self, rows: Rows, *, trunk_sha256: str = "", timeout_s: float | None = None
    ) -> Answer:
        """Return the answer to rows whose experts the router is to choose. Raises MoeError."""
        encode = encode_route(await self._name(), trunk_sha256, rows)
        response = await self._ask("Route", encode, rows, timeout_s or self.timeout_s)
        return read_answer(response, rows)

    async def report(self, worth: Worth) -> None:
        """Take in what a session's answers were worth; it is sent later, within some seconds.

        Does not wait for a router; `reported` and `unreported` count sums taken and dropped.
        """
        self._reporter.add(await self._name(), worth)

    @property
    def reported(self) -> int:
        """Reports that a router took."""
        return self._reporter.sent

    @property
    def unreported(self) -> int:
        """Reports that no router took, or that were too many."""
        return self._reporter.dropped

    async def close(self) -> None:
        """End all connections; requests in flight fail with Closed."""
        self._closed = True
        for request in self._requests:
            request.fail(Closed("the client was closed"))
        await self._reporter.close()
        await asyncio.sleep(0)
        for router in self._routers.values():
            await router.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def _name(self) -> str:
        return self.mixture or (await self.describe()).name

    async def _describe(self, deadline: float) -> Mixture:
        rounds = 0
        while True:
            for address, router in self._routers.items():
                try:
                    return Mixture.read(await router.describe(PROBE_TIMEOUT_S))
                except grpc.aio.AioRpcError as error:
                    refusal = from_code(error.code(), f"router {address}: {error.details()}")
                    if error.code() not in ABSENT:
                        raise refusal from None
            wait_s = retry.backoff(rounds, random.random())
            if asyncio.get_running_loop().time() + wait_s > deadline:
                raise refusal
            await asyncio.sleep(wait_s)
            rounds += 1

    async def _ask(self, rpc: str, encode: Encode, rows: Rows, timeout_s: float) -> RowsResponse:
        if self._closed:
            raise Closed("the client is closed")
        if rows.hidden.nbytes > MAX_MESSAGE_BYTES - _MARGIN_BYTES:
            raise InvalidRequest(
                f"hidden has {rows.hidden.nbytes} bytes; "
                f"a message holds at most {MAX_MESSAGE_BYTES - _MARGIN_BYTES}"
            )
        session = rows.sequences[0].session if rows.sequences else ""
        request = Request(self._routers, rpc, encode, session, timeout_s)
        self._requests.add(request)
        try:
            return await request.run()
        finally:
            self._requests.discard(request)
            self.retries += max(request.progress.sent - 1, 0)
            request.end()
