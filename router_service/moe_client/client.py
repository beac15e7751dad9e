"""The same client for callers without an event loop: a thread runs one, callers wait on it.

Nothing of the client is repeated here; this is only the bridge between a thread and `aio`.
"""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from concurrent.futures import CancelledError
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, TypeVar

from moe_client import aio
from moe_client.begun import Begun
from moe_client.channel import Credentials
from moe_client.errors import Closed
from moe_client.inside import Targets, local_of
from moe_client.messages import Answer, Choice, Rows
from moe_client.mixture import Mixture
from moe_client.retry import Health
from moe_client.worth import Worth
from moe_core.loop_thread import LoopThread, Stopped

T = TypeVar("T")


class RouterClient:
    """`moe_client.aio.RouterClient` for any number of threads; see there for what it promises."""

    def __init__(
        self,
        routers: Targets,
        *,
        mixture: str = "",
        timeout_s: float = aio.DEFAULT_TIMEOUT_S,
        credentials: Credentials | None = None,
        token: str | None = None,
    ) -> None:
        self._client = aio.RouterClient(
            routers,
            mixture=mixture,
            timeout_s=timeout_s,
            credentials=credentials,
            token=token,
        )
        local = local_of(routers)
        self._thread = LoopThread("moe-client") if local is None else local.thread
        self._owns_thread = local is None
        self._closed = False

    @property
    def health(self) -> dict[str, Health]:
        """What is known of each router."""
        return self._client.health

    @property
    def retries(self) -> int:
        """Messages sent again, since the client was made."""
        return self._client.retries

    @property
    def reported(self) -> int:
        """Reports that a router took."""
        return self._client.reported

    @property
    def unreported(self) -> int:
        """Reports that no router took, or that were too many."""
        return self._client.unreported

    def describe(self, *, session: str = "", timeout_s: float | None = None) -> Mixture:
        """Return what the routers serve. Raises MoeError."""
        work = self._client.describe(session=session, timeout_s=timeout_s)
        return self._wait(work)

    def begin(self, sessions: Mapping[str, bytes], *, timeout_s: float | None = None) -> Begun:
        """Begin sessions by name, with the start tokens that they have. Raises MoeError."""
        return self._wait(self._client.begin(sessions, timeout_s=timeout_s))

    def fetch_gate(self, sha256: str, *, timeout_s: float | None = None) -> bytes:
        """Return the artifact of a gate version. Raises MoeError."""
        return self._wait(self._client.fetch_gate(sha256, timeout_s=timeout_s))

    def dispatch(
        self, rows: Rows, choice: Choice, *, trunk_sha256: str = "", timeout_s: float | None = None
    ) -> Answer:
        """Return the experts' combined answer to rows whose experts are chosen. Raises MoeError."""
        work = self._client.dispatch(rows, choice, trunk_sha256=trunk_sha256, timeout_s=timeout_s)
        return self._wait(work)

    def route(
        self, rows: Rows, *, trunk_sha256: str = "", timeout_s: float | None = None
    ) -> Answer:
        """Return the answer to rows whose experts the router is to choose. Raises MoeError."""
        work = self._client.route(rows, trunk_sha256=trunk_sha256, timeout_s=timeout_s)
        return self._wait(work)

    def report(self, worth: Worth) -> None:
        """Take in what a session's answers were worth; waits for nothing, raises nothing."""
        with suppress(Stopped):
            self._thread.submit(self._client.report(worth))

    def close(self) -> None:
        """End all connections; requests in flight fail with Closed. Once more does nothing."""
        if self._closed:
            return
        self._closed = True
        with suppress(Closed):
            self._wait(self._client.close())
        if self._owns_thread:
            self._thread.stop()

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Raises MoeError: Closed where the client is, or a router of this process has ended."""
        try:
            return self._thread.submit(work).result()
        except (Stopped, CancelledError):
            raise Closed("the client, or its router in this process, was closed") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
