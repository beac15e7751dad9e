"""A real HTTP server on loopback that serves one file, and misbehaves as it is told to."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Fault:
    """How one answer goes wrong.

    `status` replaces the answer; `cut` closes after that many bytes of the body; `stall` falls
    silent there instead, until the server ends; `headers` are put over the right ones.
    """

    status: int = 0
    cut: int | None = None
    stall: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)


WELL = Fault()


@dataclass
class FileServer:
    """Serves `content` at /x; faults are used up one per request, then all goes well."""

    content: bytes
    etag: str | None = '"one"'
    ranges: bool = True
    faults: list[Fault] = field(default_factory=list)
    requests: list[Message] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)
    port: int = 0

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}/x"

    @property
    def asked(self) -> list[str | None]:
        """The Range of each request so far."""
        return [request["Range"] for request in self.requests]

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        self.requests.append(handler.headers)
        fault = self.faults.pop(0) if self.faults else WELL
        start = self._start(handler.headers)
        status = fault.status or (200 if start is None else 206)
        if start is not None and start >= len(self.content):
            status = 416
        body = b"" if status >= 300 else self.content[start or 0 :]
        handler.send_response(status)
        for name, value in (self._headers(start, body) | dict(fault.headers)).items():
            if value:
                handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body if fault.cut is None else body[: fault.cut])
        handler.wfile.flush()
        if fault.stall:
            self.over.wait(30)
        handler.close_connection = True

    def _start(self, headers: Message) -> int | None:
        asked = headers["Range"]
        same = headers["If-Range"] in (None, self.etag)
        return int(asked[6:-1]) if self.ranges and asked and same else None

    def _headers(self, start: int | None, body: bytes) -> dict[str, str]:
        headers = {"Content-Length": str(len(body)), "ETag": self.etag or ""}
        if start is not None:
            end, size = start + len(body) - 1, len(self.content)
            headers["Content-Range"] = f"bytes {start}-{end}/{size}"
        return headers


@contextmanager
def serving(files: FileServer) -> Iterator[FileServer]:
    """Run the server in threads; its port is in `files` meanwhile."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            try:
                files.answer(self)
            except OSError:
                self.close_connection = True

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Stay quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        files.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield files
        finally:
            files.over.set()
            server.shutdown()
            thread.join()
