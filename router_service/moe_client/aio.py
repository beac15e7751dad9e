"""The client of a mixture's routers: hidden states in, hidden states out, in numpy.

Holds the connections, and the requests on their way (`asking`) over them. Free of torch and
transformers, so that load generators and other runtimes can use it.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from moe_client.asking import Request
from moe_client.begun import MAX_SESSIONS, Begun, to_request
from moe_client.channel import MAX_MESSAGE_BYTES, Credentials, authorization, connect
from moe_client.errors import Closed, InvalidRequest, MalformedAnswer
from moe_client.inside import Targets, addresses_of, local_of
from moe_client.messages import (
    Answer,
    Choice,
    Make,
    Rows,
    making_dispatch,
    making_route,
    read_answer,
)
from moe_client.mixture import Mixture
from moe_client.reporter import Reporter
from moe_client.retry import ABSENT, Health
from moe_client.rounds import NOT_NAMED, first_answer
from moe_client.router import PROBE_TIMEOUT_S, Router
from moe_client.trace_parent import current_traceparent
from moe_client.worth import Worth
from moeops.v1.router_pb2 import FetchGateRequest, RowsResponse

if TYPE_CHECKING:
    from moe_client.async_model import AsyncModel

DEFAULT_TIMEOUT_S = 10.0
BEGIN_TIMEOUT_S = 3.0
"""Of one router, which waits 1 s for a table that a token is of."""
FETCH_TIMEOUT_S = 60.0
MAX_GATE_BYTES = 2 << 30
_MARGIN_BYTES = 1 << 20


def attach(model: Any, routers: Targets, **options: Any) -> AsyncModel:
    """Attach a transformers model for `async with`; options and errors are `moe_client.attach`'s.

    The value is called and its `generate` is awaited as the model's own are called.
    """
    from moe_client.async_model import AsyncModel
    from moe_client.attachment import attach as attach_now

    return AsyncModel(model, lambda: attach_now(model, routers, **options))


class RouterClient:
    """Asks the routers of one mixture; any number of requests at once, from one event loop.

    `routers` are addresses, `host:port` or `unix:/path`; a router that is silent for 0.2 s, or
    gone, is left for another. Or it is a router of this process (`inside`), asked without gRPC.
    `mixture` may be empty: then it is the one that the routers serve. `token` is that of a tenant,
    where routers ask for one; without it that in MOE_TOKEN.
    Every request ends within its time-out: with an answer, or with a MoeError. Where the caller
    uses OpenTelemetry, its current span is what routers trace the request under.
    """

    def __init__(
        self,
        routers: Targets,
        *,
        mixture: str = "",
        timeout_s: float = DEFAULT_TIMEOUT_S,
        credentials: Credentials | None = None,
        token: str | None = None,
    ) -> None:
        inside = local_of(routers)
        names = addresses_of(routers)
        if not names:
            raise ValueError("routers is empty; it must name at least one")
        if timeout_s <= 0:
            raise ValueError(f"timeout_s is {timeout_s}; it must be more than 0")
        self.mixture = mixture
        self.timeout_s = timeout_s
        self.retries = 0
        metadata = authorization(token)
        secure = credentials if inside is None else None
        self._routers = {
            name: Router(name, mixture, lambda address: connect(address, secure), metadata, inside)
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

    async def describe(self, *, session: str = "", timeout_s: float | None = None) -> Mixture:
        """Return what the routers serve, as the router of `session` says if it answers.

        Raises MoeError.
        """
        served = Mixture.read(
            await first_answer(
                self._routers,
                lambda router: router.describe(PROBE_TIMEOUT_S),
                session,
                timeout_s or self.timeout_s,
            )
        )
        self.mixture = self.mixture or served.name
        return served

    async def begin(
        self, sessions: Mapping[str, bytes], *, timeout_s: float | None = None
    ) -> Begun:
        """Begin sessions, or ask how they stand, by name with the start tokens that they have.

        Raises InvalidRequest for more than 1,024, Mismatch for a token of a table that is gone,
        and other MoeErrors.
        """
        if not 1 <= len(sessions) <= MAX_SESSIONS:
            text = f"it must be 1 to {MAX_SESSIONS}"
            raise InvalidRequest(f"{len(sessions)} sessions are to begin; {text}")
        message = to_request(await self._name(), sessions)
        answer = await first_answer(
            self._routers,
            lambda router: router.begin(message, BEGIN_TIMEOUT_S),
            next(iter(sessions)),
            timeout_s or self.timeout_s,
        )
        return Begun.read(answer, tuple(sessions))

    async def fetch_gate(self, sha256: str, *, timeout_s: float | None = None) -> bytes:
        """Return the artifact of a gate version: bytes of that digest.

        Raises NotFound where no router's table names it, MalformedAnswer where a router gave out
        something else, and other MoeErrors.
        """
        message = FetchGateRequest(mixture=await self._name(), sha256=sha256)
        content = await first_answer(
            self._routers,
            lambda router: router.fetch_gate(message, MAX_GATE_BYTES, FETCH_TIMEOUT_S),
            sha256,
            timeout_s or FETCH_TIMEOUT_S,
            passed=ABSENT | NOT_NAMED,
        )
        seen = await asyncio.to_thread(lambda: hashlib.sha256(content).hexdigest())
        if seen != sha256:
            raise MalformedAnswer(
                f"the gate that a router gave out has sha256 {seen}; {sha256} was asked for"
            )
        return content

    async def dispatch(
        self, rows: Rows, choice: Choice, *, trunk_sha256: str = "", timeout_s: float | None = None
    ) -> Answer:
        """Return the experts' combined answer to rows whose experts are chosen. Raises MoeError."""
        make = making_dispatch(
            await self._name(), trunk_sha256, rows, choice, current_traceparent()
        )
        response = await self._ask("Dispatch", make, rows, timeout_s or self.timeout_s)
        return read_answer(response, rows)

    async def route(
        self, rows: Rows, *, trunk_sha256: str = "", timeout_s: float | None = None
    ) -> Answer:
        """Return the answer to rows whose experts the router is to choose. Raises MoeError."""
        make = making_route(await self._name(), trunk_sha256, rows, current_traceparent())
        response = await self._ask("Route", make, rows, timeout_s or self.timeout_s)
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

    async def _ask(self, rpc: str, make: Make, rows: Rows, timeout_s: float) -> RowsResponse:
        if self._closed:
            raise Closed("the client is closed")
        if rows.hidden.nbytes > MAX_MESSAGE_BYTES - _MARGIN_BYTES:
            raise InvalidRequest(
                f"hidden has {rows.hidden.nbytes} bytes; "
                f"a message holds at most {MAX_MESSAGE_BYTES - _MARGIN_BYTES}"
            )
        session = rows.sequences[0].session if rows.sequences else ""
        request = Request(self._routers, rpc, make, session, timeout_s)
        self._requests.add(request)
        try:
            return await request.run()
        finally:
            self._requests.discard(request)
            self.retries += max(request.progress.sent - 1, 0)
            request.end()
