"""Cuts a byte stream between a router and a worker into frames, and makes such bytes.

Pure: no socket, no clock. A frame is a prefix, a `LinkFrame` header and a body of raw tensor bytes.
The prefix, little endian, is header length (uint32) | body length (uint32) | sum of the body
(uint64) | CRC-32 of the header | CRC-32 of these 20 bytes: so a length that was damaged on the way
is not waited for, and no damaged row is computed or answered with. The sum is that of the body's
64-bit words (the last one filled up with zeros) modulo 2⁶⁴. It misses no single bit and, unlike a
CRC in Python, costs next to nothing beside the copying. It guards against accidents, not against an
attacker. What the body means is the business of the two ends.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from google.protobuf.message import DecodeError

from moeops.v1.link_pb2 import LinkFrame

PROTOCOL = 2
_COVERED = struct.Struct("<IIQI")
_CHECK = struct.Struct("<I")
PREFIX_BYTES = _COVERED.size + _CHECK.size
MAX_HEADER_BYTES = 16 << 20
MAX_BODY_BYTES = 1 << 30

Buffer = bytes | bytearray | memoryview


class BadFrame(ValueError):
    """The peer does not speak this protocol; the link cannot go on."""


class Prefix(NamedTuple):
    """What comes before a header: how long it and the body are, and what they must add up to."""

    header_bytes: int
    body_bytes: int
    body_sum: int
    header_crc: int

    def pack(self) -> bytes:
        covered = _COVERED.pack(self.header_bytes, self.body_bytes, self.body_sum, self.header_crc)
        return covered + _CHECK.pack(zlib.crc32(covered))


class Frame(NamedTuple):
    """One frame as received. `body` stays valid as long as it is held; it is never written to."""

    header: LinkFrame
    body: memoryview


def encode(header: LinkFrame, body: Buffer = b"") -> bytes:
    """Return prefix and header; the caller sends the body right behind them."""
    head = header.SerializeToString()
    return Prefix(len(head), len(body), sum_of(body), zlib.crc32(head)).pack() + head


def sum_of(body: Buffer) -> int:
    """Return the sum of the body's 64-bit words modulo 2⁶⁴."""
    words = len(body) // 8
    rest = int.from_bytes(body[words * 8 :], "little")
    if words == 0:
        return rest
    total = int(np.frombuffer(body, "<u8", words).sum(dtype=np.uint64))
    return (total + rest) % 2**64


def parse_prefix(data: Buffer) -> Prefix:
    """Read PREFIX_BYTES. Raises BadFrame where they are damaged or a length is past its bound."""
    covered, (check,) = data[: _COVERED.size], _CHECK.unpack(data[_COVERED.size :])
    if zlib.crc32(covered) != check:
        raise BadFrame("frame prefix is damaged, or of another version of the protocol")
    prefix = Prefix(*_COVERED.unpack(covered))
    if prefix.header_bytes > MAX_HEADER_BYTES:
        text = f"frame header of {prefix.header_bytes} bytes; at most {MAX_HEADER_BYTES}"
        raise BadFrame(text)
    if prefix.body_bytes > MAX_BODY_BYTES:
        raise BadFrame(f"frame body of {prefix.body_bytes} bytes; at most {MAX_BODY_BYTES}")
    return prefix


def parse_header(data: Buffer, prefix: Prefix) -> LinkFrame:
    """Return the header. Raises BadFrame where it is damaged or no LinkFrame."""
    if zlib.crc32(data) != prefix.header_crc:
        raise BadFrame(f"frame header of {len(data)} bytes is damaged")
    try:
        header = LinkFrame.FromString(bytes(data))
    except DecodeError as error:
        raise BadFrame(f"frame header of {len(data)} bytes is not a LinkFrame: {error}") from error
    return header


def check_body(body: Buffer, prefix: Prefix) -> None:
    """Raise BadFrame where a body is not what was sent."""
    if sum_of(body) != prefix.body_sum:
        raise BadFrame(f"frame body of {len(body)} bytes is damaged")


class Decoder:
    """Collects bytes as they come and gives out whole frames.

    For event loops. A blocking reader can instead read prefix, header and body one by one into
    buffers of the right size, with `parse_prefix`, `parse_header` and `check_body`.
    """

    def __init__(self) -> None:
        self._data = bytearray()
        self._wanted: Prefix | None = None

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
            if len(self._data) < PREFIX_BYTES:
                return None
            self._wanted = parse_prefix(bytes(self._data[:PREFIX_BYTES]))
        prefix = self._wanted
        body_at = PREFIX_BYTES + prefix.header_bytes
        end = body_at + prefix.body_bytes
        if len(self._data) < end:
            return None
        whole, self._data = self._data, self._data[end:]
        self._wanted = None
        view = memoryview(whole).toreadonly()
        frame = Frame(parse_header(view[PREFIX_BYTES:body_at], prefix), view[body_at:end])
        check_body(frame.body, prefix)
        return frame
