"""Answers `GET /metrics` over HTTP, on an event loop that has more important things to do.

What is asked for is put together a little at a time, and between two of them the loop goes on with
what else is due. One scrape at a time. It knows no metric.
"""

from __future__ import annotations

import asyncio

from prometheus_client.exposition import choose_encoder

from moe_core.exposition import Encode, pieces
from moe_core.metrics import Collector

_TEXT = "text/plain; charset=utf-8"
_REQUEST_S = 10.0
_WRITE_S = 30.0
_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed"}


class CannotListen(OSError):
    """There is no such address here, or another process listens on it."""


class MetricsPort:
    """Serves one collector's metrics on a TCP port. Made and used on one event loop."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        self._turn = asyncio.Lock()
        self._server: asyncio.Server | None = None

    async def listen(self, host: str, port: int, setting: str) -> int:
        """Listen from now on; return the port. Raises CannotListen.

        `setting` is what said so, as the sentence of the error is to name it: `--metrics-port 80`.
        """
        try:
            self._server = await asyncio.start_server(self._serve, host or None, port)
        except OSError as error:
            raise CannotListen(f"{setting}: {error.strerror}") from error
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    def close(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_REQUEST_S):
                head = await reader.readuntil(b"\r\n\r\n")
            status, content_type, body = await self._answer(head.decode("latin-1"))
            writer.write(_response_head(status, content_type, len(body)))
            if not head.startswith(b"HEAD "):
                writer.write(body)
            async with asyncio.timeout(_WRITE_S):
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # whoever asked is gone, or does not speak HTTP
        finally:
            writer.close()

    async def _answer(self, head: str) -> tuple[int, str, bytes]:
        first, *rest = head.split("\r\n")
        words = first.split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            return 400, _TEXT, b"this is not a request of HTTP/1\n"
        if words[1].partition("?")[0] != "/metrics":
            return 404, _TEXT, b"there is only /metrics here\n"
        if words[0] not in ("GET", "HEAD"):
            return 405, _TEXT, b"/metrics can only be read\n"
        headers = [line.partition(":") for line in rest]
        accept = ",".join(value for name, _, value in headers if name.lower() == "accept")
        try:
            encode, content_type = choose_encoder(accept)
        except TypeError:  # as the library compares versions
            return 400, _TEXT, b"Accept names a version that is not made of numbers\n"
        return 200, content_type, await self._scrape(encode)

    async def _scrape(self, encode: Encode) -> bytes:
        async with self._turn:
            parts: list[bytes] = []
            for piece in pieces(self._collector, encode):
                parts.append(piece)
                await asyncio.sleep(0)
            return b"".join(parts)


def _response_head(status: int, content_type: str, size: int) -> bytes:
    head = (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {size}\r\nConnection: close\r\n\r\n"
    )
    return head.encode()
