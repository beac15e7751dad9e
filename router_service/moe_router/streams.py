"""The streams that are open at a router: so many at most, alive to whoever waits, ended together.

It never looks at what is asked or answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from moe_router.refusal import Code, Refused
from moe_router.stream import HEARTBEAT_S, R, RowsStream
from moeops.v1.router_pb2 import RowsResponse

MAX_STREAMS = 1_024
RETRY_AFTER_MS = 1_000


class Streams:
    """Used from one event loop only."""

    def __init__(self) -> None:
        self._open: set[RowsStream[Any]] = set()

    def __len__(self) -> int:
        return len(self._open)

    async def run(
        self, stream: RowsStream[R], requests: AsyncIterator[R]
    ) -> AsyncGenerator[RowsResponse, None]:
        """Give the answers of one more stream to its end. Raises Refused."""
        if len(self._open) >= MAX_STREAMS:
            text = f"{MAX_STREAMS} streams are open here already; use one for many requests"
            raise Refused(Code.RESOURCE_EXHAUSTED, text, RETRY_AFTER_MS)
        self._open.add(stream)
        try:
            async for response in stream.run(requests):
                yield response
        finally:
            self._open.discard(stream)

    async def beat(self) -> None:
        """Send heartbeats on all streams until cancelled."""
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            for stream in self._open:
                stream.heartbeat()

    def end(self) -> None:
        """Take no more requests; streams end when what they have is answered."""
        for stream in self._open:
            stream.end()
