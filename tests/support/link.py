"""The router's end of a link, blocking, for tests that talk to a worker by hand."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from moe_core.dtypes import ElementType, by_wire
from moe_core.frames import FIRST_PROTOCOL, PROTOCOL, Decoder, Frame, encode
from moeops.v1.link_pb2 import Group, Hello, LinkFrame, Result
from moeops.v1.types_pb2 import DTYPE_BFLOAT16, Dtype

TIMEOUT_S = 30.0
Array = NDArray[np.generic]


class Peer:
    """One link to a worker at `host:port` or `unix:/path`, that speaks this protocol."""

    def __init__(self, address: str, protocol: int = PROTOCOL) -> None:
        self._protocol = protocol
        if address.startswith("unix:"):
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.connect(address.removeprefix("unix:"))
        else:
            host, _, port = address.rpartition(":")
            self.sock = socket.create_connection((host, int(port)))
        self.sock.settimeout(TIMEOUT_S)
        self._decoder = Decoder()
        self._frames: Iterator[Frame] = iter(())
        self.results: dict[int, Frame] = {}
        if protocol > FIRST_PROTOCOL:
            self.send(LinkFrame(hello=Hello(protocol=protocol)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def next(self) -> Frame:
        """Return the next frame of any kind. Raises EOFError where the worker hung up."""
        while (frame := next(self._frames, None)) is None:
            try:
                data = self.sock.recv(1 << 20)
            except ConnectionResetError:
                data = b""
            if not data:
                raise EOFError("the worker hung up")
            self._frames = self._decoder.feed(data)
        return frame

    def next_of(self, kind: str) -> Frame:
        while (frame := self.next()).header.WhichOneof("kind") != kind:
            pass
        return frame

    def result(self, attempt: int) -> Frame:
        """Return the Result of an attempt, keeping those of others for later."""
        while attempt not in self.results:
            frame = self.next_of("result")
            self.results[frame.header.result.attempt] = frame
        return self.results.pop(attempt)

    def send(self, header: LinkFrame, body: bytes = b"") -> None:
        self.sock.sendall(encode(header, body, self._protocol) + body)

    def hung_up(self) -> bool:
        """Read to the end; tell whether the worker hung up in time."""
        try:
            while True:
                self.next()
        except EOFError:
            return True
        except TimeoutError:
            return False


def compute(
    attempt: int,
    groups: Sequence[tuple[str, int]],
    *,
    hidden_size: int,
    layer: int = 0,
    dtype: Dtype.ValueType = DTYPE_BFLOAT16,
    deadline_ms: int = 0,
) -> LinkFrame:
    """Return the header of a Compute; `groups` are (sha256, rows)."""
    frame = LinkFrame()
    frame.compute.attempt = attempt
    frame.compute.layer = layer
    frame.compute.dtype = dtype
    frame.compute.hidden_size = hidden_size
    frame.compute.deadline_ms = deadline_ms
    frame.compute.groups.extend(Group(sha256=sha256, rows=rows) for sha256, rows in groups)
    return frame


def random_rows(rows: int, hidden_size: int, element: ElementType, seed: int) -> Array:
    """Return (rows, hidden_size) normal values."""
    values = np.random.default_rng(seed).standard_normal((rows, hidden_size), dtype=np.float32)
    return values.astype(element.numpy)


def rows_of(frame: Frame, dtype: Dtype.ValueType, hidden_size: int) -> Array:
    """Return the body of a Result as (rows, hidden_size)."""
    return np.frombuffer(frame.body, by_wire(dtype).numpy).reshape(-1, hidden_size)


def failures(result: Result) -> list[tuple[int, str]]:
    """Return code and sentence of each group; (0, "") for one that was answered."""
    return [(group.failure.code, group.failure.message) for group in result.groups]
