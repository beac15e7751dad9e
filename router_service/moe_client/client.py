"""The same client for callers without an event loop: a thread runs one, callers wait on it.

Nothing of the client is repeated here; this is only the bridge between a thread and `aio`.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self, TypeVar

from moe_client import aio
from moe_client.begun import Begun
from moe_client.channel import Credentials
from moe_client.messages import Answer, Choice, Rows
from moe_client.mixture import Mixture
from moe_client.retry import Health
from moe_client.worth import Worth

T = TypeVar("T")


class LoopThread:
    """An event loop in a daemon thread of its own."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Start `work` on the loop; safe from any thread but the loop's."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def stop(self) -> None:
        """End the thread; what still runs on the loop is cancelled."""
        self.submit(_cancel_others()).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


class RouterClient:
    """`moe_client.aio.RouterClient` for any number of threads; see there for what it promises."""

    def __init__(
        self,
        addresses: str | Sequence[str],
        *,
        mixture: str = "",
        timeout_s: float = aio.DEFAULT_TIMEOUT_S,
        credentials: Credentials | None = None,
        token: str | None = None,
    ) -> None:
        self._client = aio.RouterClient(
            addresses,
            mixture=mixture,
            timeout_s=timeout_s,
            credentials=credentials,
            token=token,
        )
        self._thread = LoopThread("moe-client")
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
        return self._thread.submit(work).result()

    def begin(self, sessions: Mapping[str, bytes], *, timeout_s: float | None = None) -> Begun:
        """Begin sessions by name, with the start tokens that they have. Raises MoeError."""
        return self._thread.submit(self._client.begin(sessions, timeout_s=timeout_s)).result()

    def fetch_gate(self, sha256: str, *, timeout_s: float | None = None) -> bytes:
        """Return the artifact of a gate version. Raises MoeError."""
        return self._thread.submit(self._client.fetch_gate(sha256, timeout_s=timeout_s)).result()

    def dispatch(
        self, rows: Rows, choice: Choice, *, trunk_sha256: str = "", timeout_s: float | None = None
    ) -> Answer:
        """Return the experts' combined answer to rows whose experts are chosen. Raises MoeError."""
        work = self._client.dispatch(rows, choice, trunk_sha256=trunk_sha256, timeout_s=timeout_s)
        return self._thread.submit(work).result()

    def route(
        self, rows: Rows, *, trunk_sha256: str = "", timeout_s: float | None = None
    ) -> Answer:
        """Return the answer to rows whose experts the router is to choose. Raises MoeError."""
        work = self._client.route(rows, trunk_sha256=trunk_sha256, timeout_s=timeout_s)
        return self._thread.submit(work).result()

    def report(self, worth: Worth) -> None:
        """Take in what a session's answers were worth; waits for nothing, raises nothing."""
        self._thread.submit(self._client.report(worth))

    def close(self) -> None:
        """End all connections; requests in flight fail with Closed. Once more does nothing."""
        if self._closed:
            return
        self._closed = True
        self._thread.submit(self._client.close()).result()
        self._thread.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
