"""Cuts a byte stream between a router and a worker into frames, and makes such bytes.

Pure: no socket, no clock. A frame is a prefix, a `LinkFrame` header and a body of raw tensor bytes.
The prefix, little endian, is by protocol

  1  header length (uint32) | body length (uint64)
  2  MARK (uint32) | header length | body length | CRC-32 of the header (uint32 each) |
     sum of the body (uint64) | CRC-32 of the 24 bytes before (uint32)

A reader takes both, frame by frame: MARK is no length that protocol 1 allows, nor is what any one
flipped bit makes of it. Of protocol 2, a length that was damaged on the way is not waited for, and
no damaged row is computed or answered with. The sum is the CRC-32 of the body up to 32 KiB; of a
longer one it is that of its 64-bit words (the last one filled up with zeros) modulo 2⁶⁴, which
misses no single bit either and takes a seventh of the time. It guards against accidents, not
against an attacker. What the body means is the business of the two ends.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from google.protobuf.message import DecodeError

from moeops.v1.link_pb2 import LinkFrame

# The newest protocol, and the one that a worker begins with, before it is known what the router
# knows. Both ends know both, so that each works with a neighbour of one version before or after.
PROTOCOL = 2
FIRST_PROTOCOL = PROTOCOL - 1

_MARK = 0x32656F6D  # "moe2"
_PLAIN = struct.Struct("<IQ")
_COVERED = struct.Struct("<IIIIQ")
_CHECK = struct.Struct("<I")
_WORD = np.dtype("<u8")
_SMALL_BODY_BYTES = 32 << 10
_SUMMED_BYTES = _COVERED.size + _CHECK.size
SHORTEST_PREFIX_BYTES = _PLAIN.size
MAX_HEADER_BYTES = 16 << 20
MAX_BODY_BYTES = 1 << 30

Buffer = bytes | bytearray | memoryview


class BadFrame(ValueError):
    """The peer does not speak this protocol; the link cannot go on."""


class Sums(NamedTuple):
    """What header and body of a frame must add up to."""

    header_crc: int
    body_sum: int


class Prefix(NamedTuple):
    """What comes before a header. Frames of protocol 1 have no sums."""

    header_bytes: int
    body_bytes: int
    sums: Sums | None = None

    @property
    def protocol(self) -> int:
        return 1 if self.sums is None else 2

    def pack(self) -> bytes:
        if self.sums is None:
            return _PLAIN.pack(self.header_bytes, self.body_bytes)
        covered = _COVERED.pack(_MARK, self.header_bytes, self.body_bytes, *self.sums)
        return covered + _CHECK.pack(zlib.crc32(covered))


class Frame(NamedTuple):
    """One frame as received. `body` stays valid as long as it is held; it is never written to."""

    header: LinkFrame
    body: memoryview
    protocol: int


def encode(header: LinkFrame, body: Buffer = b"", protocol: int = PROTOCOL) -> bytes:
    """Return prefix and header; the caller sends the body right behind them."""
    head = header.SerializeToString()
    sums = Sums(zlib.crc32(head), sum_of(body)) if protocol > 1 else None
    return Prefix(len(head), len(body), sums).pack() + head


def sum_of(body: Buffer) -> int:
    """Return what the prefix of protocol 2 says of a body."""
    if len(body) <= _SMALL_BODY_BYTES:
        return zlib.crc32(body)
    words = len(body) // 8
    rest = int.from_bytes(body[words * 8 :], "little")
    total = int(np.add.reduce(np.frombuffer(body, _WORD, words)))
    return (total + rest) % 2**64


def prefix_bytes(start: Buffer) -> int:
    """Return how long the prefix is that begins with these SHORTEST_PREFIX_BYTES or more."""
    return _SUMMED_BYTES if _CHECK.unpack_from(start)[0] == _MARK else _PLAIN.size


def parse_prefix(data: Buffer) -> Prefix:
    """Read a whole prefix. Raises BadFrame where it is damaged or a length is past its bound."""
    if len(data) == _PLAIN.size:
        prefix = Prefix(*_PLAIN.unpack(data))
    else:
        covered = data[: _COVERED.size]
        if zlib.crc32(covered) != _CHECK.unpack_from(data, _COVERED.size)[0]:
            raise BadFrame("frame prefix is damaged")
        _, header_bytes, body_bytes, *sums = _COVERED.unpack(covered)
        prefix = Prefix(header_bytes, body_bytes, Sums(*sums))
    if prefix.header_bytes > MAX_HEADER_BYTES:
        text = f"frame header of {prefix.header_bytes} bytes; at most {MAX_HEADER_BYTES}"
        raise BadFrame(text)
    if prefix.body_bytes > MAX_BODY_BYTES:
        raise BadFrame(f"frame body of {prefix.body_bytes} bytes; at most {MAX_BODY_BYTES}")
    return prefix


def parse_header(data: Buffer, prefix: Prefix) -> LinkFrame:
    """Return the header. Raises BadFrame where it is damaged or no LinkFrame."""
    if prefix.sums is not None and zlib.crc32(data) != prefix.sums.header_crc:
        raise BadFrame(f"frame header of {len(data)} bytes is damaged")
    try:
        header = LinkFrame.FromString(bytes(data))
    except DecodeError as error:
        raise BadFrame(f"frame header of {len(data)} bytes is not a LinkFrame: {error}") from error
    return header


def check_body(body: Buffer, prefix: Prefix) -> None:
    """Raise BadFrame where a body is not what was sent."""
    if prefix.sums is not None and sum_of(body) != prefix.sums.body_sum:
        raise BadFrame(f"frame body of {len(body)} bytes is damaged")


class Decoder:
    """Collects bytes as they come and gives out whole frames.

    For event loops. A blocking reader can instead read prefix, header and body one by one into
    buffers of the right size, with `prefix_bytes`, `parse_prefix`, `parse_header`, `check_body`.
    """

    def __init__(self) -> None:
        self._data = bytearray()
        self._wanted: Prefix | None = None
        self._header_at = 0

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
        prefix = self._wanted or self._prefix()
        if prefix is None:
            return None
        self._wanted = prefix
        body_at = self._header_at + prefix.header_bytes
        end = body_at + prefix.body_bytes
        if len(self._data) < end:
            return None
        whole, self._data = self._data, self._data[end:]
        self._wanted = None
        view = memoryview(whole).toreadonly()
        header, body = parse_header(view[self._header_at : body_at], prefix), view[body_at:end]
        check_body(body, prefix)
        return Frame(header, body, prefix.protocol)

    def _prefix(self) -> Prefix | None:
        if len(self._data) < SHORTEST_PREFIX_BYTES:
            return None
        self._header_at = prefix_bytes(self._data)
        if len(self._data) < self._header_at:
            return None
        return parse_prefix(bytes(self._data[: self._header_at]))
