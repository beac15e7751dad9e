"""A worker that does what a test tells it: a real socket in this process, speaking link frames."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from moe_core.frames import FIRST_PROTOCOL, PROTOCOL, Decoder, Frame, encode
from moeops.v1.link_pb2 import (
    Compute,
    GroupResult,
    Heartbeat,
    Inventory,
    LinkFrame,
    Result,
    Servable,
)
from moeops.v1.types_pb2 import DTYPE_FLOAT32


@dataclass
class ScriptedWorker:
    """Accepts links; computes arrive in `computes`, and the test answers them, or does not.

    `protocol` is the newest that it knows, `spoken` the one it speaks, `heard` are those of the
    frames that came.
    """

    sha256: Sequence[str]
    greets: bool = True
    address: str = ""
    connections: int = 0
    protocol: int = PROTOCOL
    spoken: int = FIRST_PROTOCOL
    heard: list[int] = field(default_factory=list)
    computes: asyncio.Queue[tuple[Compute, bytes]] = field(default_factory=asyncio.Queue)
    _writer: asyncio.StreamWriter | None = None

    def inventory(self, *, draining: bool = False) -> Inventory:
        servable = [
            Servable(expert_id="e", sha256=digest, layers=[0], dtype=DTYPE_FLOAT32)
            for digest in self.sha256
        ]
        return Inventory(
            protocol=self.protocol, worker="scripted", servable=servable, draining=draining
        )

    def send(self, header: LinkFrame, body: bytes = b"") -> None:
        assert self._writer is not None
        self._writer.write(encode(header, body, self.spoken) + body)

    def greet(self, *, draining: bool = False) -> None:
        self.send(LinkFrame(inventory=self.inventory(draining=draining)))

    def beat(self, queued_rows: int = 0, rows: int = 0, busy_us: int = 0) -> None:
        self.send(
            LinkFrame(heartbeat=Heartbeat(queued_rows=queued_rows, rows=rows, busy_us=busy_us))
        )

    def answer(
        self, compute: Compute, body: bytes, *, cut_bytes: int = 0, queue_us: int = 0
    ) -> None:
        """Give the rows back as the answer of all groups; without its last bytes where cut."""
        assert self._writer is not None
        groups = [GroupResult() for _ in compute.groups]
        result = Result(attempt=compute.attempt, groups=groups, queue_us=queue_us)
        header = LinkFrame(result=result)
        frame = encode(header, body, self.spoken) + body
        self._writer.write(frame[: len(frame) - cut_bytes])

    def send_garbage(self) -> None:
        assert self._writer is not None
        self._writer.write(b"\xff" * 64)

    def reset(self) -> None:
        """Cut the connection without a farewell."""
        assert self._writer is not None
        self._writer.transport.abort()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer, decoder = writer, Decoder()
        self.connections, self.spoken = self.connections + 1, FIRST_PROTOCOL
        if self.greets:
            self.greet()
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                for frame in decoder.feed(data):
                    self._take(frame)
        writer.close()

    def _take(self, frame: Frame) -> None:
        self.heard.append(frame.protocol)
        if frame.header.WhichOneof("kind") == "hello":
            self.spoken = min(self.protocol, frame.header.hello.protocol)
            self.greet()
            return
        self.computes.put_nowait((frame.header.compute, bytes(frame.body)))


@asynccontextmanager
async def scripted_worker(
    *sha256: str, greets: bool = True, protocol: int = PROTOCOL
) -> AsyncIterator[ScriptedWorker]:
    """Listen on a free port; `address` is where."""
    worker = ScriptedWorker(sha256, greets, protocol=protocol)
    server = await asyncio.start_server(worker.accept, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    worker.address = f"{host}:{port}"
    try:
        yield worker
    finally:
        server.close()
        if worker.connections:
            worker.reset()


async def until(condition: Callable[[], bool], what: str) -> None:
    """Wait until something becomes so; AssertionError after ten seconds."""
    try:
        async with asyncio.timeout(10):
            while not condition():  # noqa: ASYNC110  (whatever it is has no event)
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"never: {what}") from None
