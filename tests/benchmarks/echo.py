"""`python -m tests.benchmarks.echo`: gives bytes back, over gRPC and over a socket; the floors.

Prints `echo grpc=PORT tcp=PORT` and serves until it is ended. A message begins with the number of
bytes that are wanted back (4 bytes, big endian); over the socket its own length comes before that.
"""

from __future__ import annotations

import asyncio
import re
import socket
import sys
import threading
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio

from tests.support.program import Program

METHOD = "/echo/Echo"
_OPTIONS = [("grpc.max_receive_message_length", 1 << 28), ("grpc.max_send_message_length", 1 << 28)]


class EchoProcess(Program):
    """A running echo."""

    LISTENING = re.compile(r"echo grpc=(\d+) tcp=(\d+)")


class GrpcEcho:
    """A stream to it, on the loop that is running."""

    def __init__(self, port: str) -> None:
        self._channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=_OPTIONS)
        self._call: Any = self._channel.stream_stream(METHOD)()

    async def ask(self, message: bytes) -> int:
        await self._call.write(message)
        return len(await self._call.read())

    async def close(self) -> None:
        self._call.cancel()
        await self._channel.close()


class LinkEcho:
    """A socket to it, as blocking as a link is."""

    def __init__(self, port: str) -> None:
        self._sock = socket.create_connection(("127.0.0.1", int(port)))
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, message: bytes) -> None:
        self._sock.sendall(len(message).to_bytes(4, "big") + message)
        _read(self._sock, int.from_bytes(message[:4], "big"))

    def close(self) -> None:
        self._sock.close()


def message(sent: int, back: int) -> bytes:
    """Return a message of so many bytes that asks for so many."""
    return back.to_bytes(4, "big") + bytes(max(sent - 4, 0))


def _read(sock: socket.socket, size: int) -> bytearray:
    data = bytearray(size)
    view = memoryview(data)
    while view:
        count = sock.recv_into(view)
        if not count:
            raise EOFError
        view = view[count:]
    return data


def _answer(sock: socket.socket) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        while True:
            asked = _read(sock, int.from_bytes(_read(sock, 4), "big"))
            sock.sendall(bytes(int.from_bytes(asked[:4], "big")))
    except (EOFError, OSError):
        sock.close()


def _accept(listener: socket.socket) -> None:
    while True:
        sock, _ = listener.accept()
        threading.Thread(target=_answer, args=(sock,), daemon=True).start()


async def _echo(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
    async for asked in requests:
        yield bytes(int.from_bytes(asked[:4], "big"))


async def main() -> None:
    """Serve."""
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=_accept, args=(listener,), daemon=True).start()
    server = grpc.aio.server(options=_OPTIONS)
    handler: Any = grpc.stream_stream_rpc_method_handler(_echo)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("echo", {"Echo": handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"echo grpc={port} tcp={listener.getsockname()[1]}", file=sys.stderr, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main())
