"""Cuts a byte stream between a router and a worker into frames, and makes such bytes.

Pure: no socket, no clock. A frame is a `LinkFrame` header and a body of raw tensor bytes:
header length (uint32) | body length (uint64) | header | body, little endian. What the body means
is the business of the two ends; this module only refuses what no honest peer would send.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from google.protobuf.message import DecodeError

from moeops.v1.link_pb2 import LinkFrame

PROTOCOL = 1
PREFIX = struct.Struct("<IQ")
MAX_HEADER_BYTES = 16 << 20
MAX_BODY_BYTES = 1 << 30


class BadFrame(ValueError):
    """The peer does not speak this protocol; the link cannot go on."""


class Frame(NamedTuple):
    """One frame as received. `body` stays valid as long as it is held; it is never written to."""

    header: LinkFrame
    body: memoryview


def encode(header: LinkFrame, body_bytes: int = 0) -> bytes:
    """Return prefix and header; the caller sends `body_bytes` of body right behind them."""
    head = header.SerializeToString()
    return PREFIX.pack(len(head), body_bytes) + head


def parse_prefix(prefix: bytes | memoryview) -> tuple[int, int]:
    """Return (header bytes, body bytes). Raises BadFrame where either is past its bound."""
    header_bytes, body_bytes = PREFIX.unpack(prefix)
    if header_bytes > MAX_HEADER_BYTES:
        raise BadFrame(f"frame header of {header_bytes} bytes; at most {MAX_HEADER_BYTES}")
    if body_bytes > MAX_BODY_BYTES:
        raise BadFrame(f"frame body of {body_bytes} bytes; at most {MAX_BODY_BYTES}")
    return header_bytes, body_bytes


def parse_header(data: bytes | memoryview) -> LinkFrame:
    """Return the header. Raises BadFrame where it is not one, or of no kind known here."""
    try:
        header = LinkFrame.FromString(bytes(data))
    except DecodeError as error:
        raise BadFrame(f"frame header of {len(data)} bytes is not a LinkFrame: {error}") from error
    return header


class Decoder:
    """Collects bytes as they come and gives out whole frames.

    For event loops. A blocking reader can instead read prefix, header and body one by one into
    buffers of the right size, with `parse_prefix` and `parse_header`.
    """

    def __init__(self) -> None:
        self._data = bytearray()
        self._wanted: tuple[int, int] | None = None

    @property
    def unfinished_bytes(self) -> int:
        """Bytes of a frame that is not whole yet."""
        return len(self._data)

    def feed(self, data: bytes | memoryview) -> Iterator[Frame]:
        """Take what was read and give out the frames that are whole now. Raises BadFrame."""
        self._data += data
        while (frame := self._next()) is not None:
            yield frame

    def _next(self) -> Frame | None:
        if self._wanted is None:
            if len(self._data) < PREFIX.size:
                return None
            self._wanted = parse_prefix(memoryview(self._data)[: PREFIX.size].tobytes())
        header_bytes, body_bytes = self._wanted
        body_at = PREFIX.size + header_bytes
        end = body_at + body_bytes
        if len(self._data) < end:
            return None
        whole, self._data = self._data, self._data[end:]
        self._wanted = None
        view = memoryview(whole).toreadonly()
        return Frame(parse_header(view[PREFIX.size : body_at]), view[body_at:end])
