"""The bytes of one connection to a worker: cuts what comes into frames and makes what goes out."""

from __future__ import annotations

import asyncio
from typing import Protocol, cast

from moe_core import dtypes
from moe_core.frames import BadFrame, Decoder
from moe_core.log import tell
from moe_router.message import Message
from moeops.v1.link_pb2 import Compute, Group, LinkFrame


class Receiver(Protocol):
    """The link that a connection belongs to."""

    address: str

    def connected(self, transport: asyncio.Transport) -> None: ...

    def beat(self) -> None: ...

    def received(self, header: LinkFrame, body: memoryview) -> None: ...

    def disconnected(self) -> None: ...


class Connection(asyncio.Protocol):
    """The bytes of one connection, for its link."""

    def __init__(self, link: Receiver) -> None:
        self._link = link
        self._decoder = Decoder()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._link.connected(self._transport)

    def data_received(self, data: bytes) -> None:
        self._link.beat()
        try:
            for frame in self._decoder.feed(data):
                self._link.received(frame.header, frame.body)
        except BadFrame as error:
            tell("link_bad_frame", address=self._link.address, reason=error)
            assert self._transport is not None
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._link.disconnected()


def compute_frame(message: Message, attempt: int) -> LinkFrame:
    """Return the header of a message under an attempt's number."""
    compute = Compute(
        attempt=attempt,
        layer=message.layer,
        dtype=dtypes.by_numpy(message.rows.dtype).wire,
        hidden_size=message.rows.shape[1],
        groups=[Group(sha256=part.ask.sha256, rows=len(part.pairs)) for part in message.parts],
        deadline_ms=max(1, int(message.timeout_s * 1000)),
    )
    if message.trace is not None:
        compute.trace_id = message.trace.trace_id.to_bytes(16)
        for group, span_id in zip(compute.groups, message.trace.spans, strict=True):
            group.span_id = span_id
    return LinkFrame(compute=compute)
