"""Reads frames from a blocking socket: small ones many at a time, bodies straight to their place.

It knows the frame's shape and its bounds, and nothing of what frames mean.
"""

from __future__ import annotations

import socket
import struct
from typing import Protocol

from moe_core.frames import (
    SHORTEST_PREFIX_BYTES,
    Prefix,
    check_body,
    parse_header,
    parse_prefix,
    prefix_bytes,
)
from moeops.v1.link_pb2 import LinkFrame

_BUFFER_BYTES = 1 << 16
_STALL_S = 10


class Stalled(Exception):
    """In the middle of a frame the peer sent nothing for too long."""


class Opened(Protocol):
    """What bytes are read from, where they were sealed."""

    def recv_into(self, into: memoryview) -> int: ...


class Receiver:
    """The reading end of one link; used by one thread. Bytes come from `opened` if that is given.

    Raises EOFError where the peer hung up (its message says if that was in mid-frame), BadFrame,
    Stalled, OSError.
    """

    def __init__(self, sock: socket.socket, opened: Opened | None = None) -> None:
        self._from: Opened = sock if opened is None else opened
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", _STALL_S, 0))
        self._buffer = memoryview(bytearray(_BUFFER_BYTES))
        self._start = 0
        self._end = 0
        self._prefix = Prefix(0, 0)

    def frame(self) -> tuple[LinkFrame, int]:
        """Wait for a frame; return its header and the bytes of the body that follows."""
        self._gather(SHORTEST_PREFIX_BYTES, patient=True)
        count = prefix_bytes(self._buffer[self._start :])
        self._gather(count)
        self._prefix = prefix = parse_prefix(bytes(self._take(count)))
        if prefix.header_bytes <= _BUFFER_BYTES:
            self._gather(prefix.header_bytes)
            header = self._take(prefix.header_bytes)
        else:
            header = memoryview(bytearray(prefix.header_bytes))
            self._fill(header)
        return parse_header(header, prefix), prefix.body_bytes

    def body(self, into: memoryview) -> None:
        """Fill `into` with the whole body of the frame."""
        self._fill(into)
        check_body(into, self._prefix)

    def skip(self, count: int) -> None:
        """Read so many bytes and forget them."""
        count -= len(self._take(min(self._end - self._start, count)))
        while count > 0:
            count -= self._receive(self._buffer[: min(count, _BUFFER_BYTES)], patient=False)

    def _fill(self, into: memoryview) -> None:
        ready = min(self._end - self._start, len(into))
        into[:ready] = self._take(ready)
        while ready < len(into):
            ready += self._receive(into[ready:], patient=False)

    def _take(self, count: int) -> memoryview:
        self._start += count
        return self._buffer[self._start - count : self._start]

    def _gather(self, count: int, *, patient: bool = False) -> None:
        """Have so many bytes, at most a buffer's, ready to be taken."""
        if self._start + count > _BUFFER_BYTES or self._start == self._end:
            rest = bytes(self._buffer[self._start : self._end])
            self._buffer[: len(rest)] = rest
            self._start, self._end = 0, len(rest)
        while self._end - self._start < count:
            nothing_yet = patient and self._start == self._end
            self._end += self._receive(self._buffer[self._end :], patient=nothing_yet)

    def _receive(self, into: memoryview, *, patient: bool) -> int:
        while True:
            try:
                got = self._from.recv_into(into)
            except BlockingIOError:
                if patient:
                    continue
                raise Stalled(f"no byte for {_STALL_S} s in mid-frame") from None
            if got == 0:
                raise EOFError("between frames" if patient else "in mid-frame")
            return got
