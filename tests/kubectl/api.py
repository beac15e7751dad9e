"""An HTTPS server on loopback that asks for a client certificate and says what it was asked."""

from __future__ import annotations

import json
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: as whom, and what for."""

    method: str
    path: str
    authorization: str | None
    certified: bool
    content_type: str | None = None


@dataclass(slots=True)
class Api:
    """The server's address and files, what it was asked, and what it is to do next."""

    url: str
    certificate: Path
    key: Path
    asked: list[Asked] = field(default_factory=list)
    hang_up: bool = False  # after the next request: no answer, and the connection closed


@contextmanager
def serving(folder: Path) -> Iterator[Api]:
    """One certificate is the authority's, the server's and the client's."""
    certificate, key = folder / "api.crt", folder / "api.key"
    make = "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=ann -days 2"
    names = [
        "-addext",
        "subjectAltName=IP:127.0.0.1",
        "-out",
        str(certificate),
        "-keyout",
        str(key),
    ]
    subprocess.run([*make.split(), *names], check=True, capture_output=True)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    api = Api(f"https://127.0.0.1:{server.server_port}", certificate, key)
    _Handler.api = api
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(certificate)
    context.verify_mode = ssl.CERT_OPTIONAL
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    api: Api
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PATCH(self) -> None:
        self._answer()

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        certified = bool(self.connection.getpeercert())
        self.api.asked.append(
            Asked(
                self.command,
                self.path,
                self.headers["Authorization"],
                certified,
                self.headers["Content-Type"],
            )
        )
        if self.api.hang_up:
            self.api.hang_up, self.close_connection = False, True
            return
        body = json.dumps({"metadata": {"name": "tiny"}, "items": []}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
