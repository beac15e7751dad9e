"""Frames survive any cutting of the stream; what is no frame is refused."""

from __future__ import annotations

import zlib
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_core.frames import (
    MAX_BODY_BYTES,
    MAX_HEADER_BYTES,
    PROTOCOL,
    BadFrame,
    Decoder,
    Prefix,
    Sums,
    encode,
    parse_header,
    parse_prefix,
    sum_of,
)
from moeops.v1.link_pb2 import (
    Compute,
    Group,
    GroupResult,
    Heartbeat,
    Inventory,
    LinkFrame,
    Result,
    Servable,
)
from moeops.v1.types_pb2 import DTYPE_FLOAT32

DIGEST = "ab" * 32
ROWS = bytes(range(16))

# As the programs wrote them that knew protocol 1 only.
RECORDED = [
    pytest.param(
        LinkFrame(
            inventory=Inventory(
                protocol=1,
                worker="w",
                node="n",
                incarnation="i",
                fingerprint="f",
                servable=[Servable(expert_id="e", sha256=DIGEST, layers=[0], dtype=DTYPE_FLOAT32)],
            )
        ),
        b"",
        "5c00000000000000000000000a5a08011201771a016e2201692a0166324a0a01651240"
        + DIGEST.encode().hex()
        + "1a01002001",
        id="inventory",
    ),
    pytest.param(
        LinkFrame(heartbeat=Heartbeat(queued_rows=5, busy_us=300, rows=7)),
        b"",
        "0900000000000000000000001207080510ac021807",
        id="heartbeat",
    ),
    pytest.param(
        LinkFrame(
            compute=Compute(
                attempt=3,
                layer=1,
                dtype=DTYPE_FLOAT32,
                hidden_size=4,
                groups=[Group(sha256=DIGEST, rows=1)],
                deadline_ms=250,
            )
        ),
        ROWS,
        "5300000010000000000000001a5108031001180120042a440a40"
        + DIGEST.encode().hex()
        + "100130fa01000102030405060708090a0b0c0d0e0f",
        id="compute",
    ),
    pytest.param(
        LinkFrame(
            result=Result(attempt=3, groups=[GroupResult(norm_sum=2.5)], queue_us=4, compute_us=9)
        ),
        ROWS,
        "0f0000001000000000000000220d080312051d0000204018042009000102030405060708090a0b0c0d0e0f",
        id="result",
    ),
]


def heartbeat(rows: int) -> LinkFrame:
    frame = LinkFrame()
    frame.heartbeat.queued_rows = rows
    return frame


@pytest.mark.parametrize(("header", "body", "recorded"), RECORDED)
def test_protocol_1_is_still_spoken_and_understood(
    header: LinkFrame, body: bytes, recorded: str
) -> None:
    assert (encode(header, body, protocol=1) + body).hex() == recorded
    (frame,) = Decoder().feed(bytes.fromhex(recorded))
    assert (frame.header, bytes(frame.body), frame.protocol) == (header, body, 1)


@given(st.lists(st.tuples(st.integers(1, PROTOCOL), st.binary(max_size=40)), max_size=8))
def test_each_frame_says_which_protocol_it_is_of(frames: list[tuple[int, bytes]]) -> None:
    stream = b"".join(encode(heartbeat(1), body, known) + body for known, body in frames)

    seen = [(frame.protocol, bytes(frame.body)) for frame in Decoder().feed(stream)]
    assert seen == frames


@given(
    frames=st.lists(st.tuples(st.integers(0, 2**32 - 1), st.binary(max_size=200)), max_size=8),
    cuts=st.lists(st.integers(1, 64), min_size=1, max_size=30),
)
def test_what_was_encoded_comes_out_however_it_is_cut(
    frames: list[tuple[int, bytes]], cuts: list[int]
) -> None:
    stream = b"".join(encode(heartbeat(rows), body) + body for rows, body in frames)
    decoder, seen, at, turn = Decoder(), [], 0, 0
    while at < len(stream):
        step = cuts[turn % len(cuts)]
        seen += list(decoder.feed(stream[at : at + step]))
        at, turn = at + step, turn + 1
    assert [(f.header.heartbeat.queued_rows, bytes(f.body)) for f in seen] == frames
    assert decoder.unfinished_bytes == 0


def test_a_frame_stays_valid_while_more_come() -> None:
    decoder = Decoder()
    (first,) = decoder.feed(encode(heartbeat(1), b"abc") + b"abc")
    list(decoder.feed(encode(heartbeat(2), b"xyz") + b"xyz"))
    assert bytes(first.body) == b"abc"
    assert first.body.readonly


def test_half_a_frame_is_counted_and_kept() -> None:
    decoder = Decoder()
    whole = encode(heartbeat(7), b"ab") + b"ab"
    assert list(decoder.feed(whole[:-1])) == []
    assert decoder.unfinished_bytes == len(whole) - 1
    assert [bytes(f.body) for f in decoder.feed(whole[-1:])] == [b"ab"]


@pytest.mark.parametrize(
    ("header_bytes", "body_bytes", "sentence"),
    [
        pytest.param(MAX_HEADER_BYTES + 1, 0, "frame header of 16777217 bytes", id="header"),
        pytest.param(0, MAX_BODY_BYTES + 1, "frame body of 1073741825 bytes", id="body"),
        pytest.param(2**32 - 1, 2**32 - 1, "frame header of", id="both"),
    ],
)
def test_lengths_have_bounds(header_bytes: int, body_bytes: int, sentence: str) -> None:
    prefix = Prefix(header_bytes, body_bytes, Sums(0, 0)).pack()
    with pytest.raises(BadFrame, match=sentence):
        parse_prefix(prefix)
    with pytest.raises(BadFrame, match=sentence):
        list(Decoder().feed(prefix))


def test_the_largest_lengths_are_fine() -> None:
    prefix = Prefix(MAX_HEADER_BYTES, MAX_BODY_BYTES, Sums(2**32 - 1, 2**64 - 1))
    assert parse_prefix(prefix.pack()) == prefix


def of(header: bytes) -> Prefix:
    return Prefix(len(header), 0, Sums(zlib.crc32(header), 0))


def test_a_header_that_is_no_protobuf_is_refused() -> None:
    with pytest.raises(BadFrame, match="3 bytes is not a LinkFrame"):
        parse_header(b"\xff\xff\xff", of(b"\xff\xff\xff"))


def test_a_kind_to_come_is_no_error() -> None:
    assert parse_header(b"\x7a\x03abc", of(b"\x7a\x03abc")).WhichOneof("kind") is None


@given(st.binary(max_size=300), st.integers(0, 10**6))
def test_one_bit_that_is_flipped_anywhere_is_noticed(body: bytes, at: int) -> None:
    """And at once: a damaged length is not waited for, nor is it taken for another protocol's."""
    frame = bytearray(encode(heartbeat(5), body) + body)
    at %= 8 * len(frame)
    frame[at // 8] ^= 1 << at % 8

    with pytest.raises(BadFrame):
        list(Decoder().feed(bytes(frame)))


@given(st.binary(max_size=64), st.integers(0, 7), st.sampled_from([0, 32 << 10, 40_000]))
def test_the_sum_of_a_body_is_the_same_wherever_it_lies(
    rest: bytes, shift: int, before: int
) -> None:
    """A CRC-32 up to 32 KiB, else that of the words."""
    body = bytes(n % 251 for n in range(before)) + rest
    words = [int.from_bytes(body[at : at + 8], "little") for at in range(0, len(body), 8)]
    held = memoryview(bytes(shift) + body)[shift:]

    assert sum_of(held) == (zlib.crc32(body) if len(body) <= 32 << 10 else sum(words) % 2**64)


@given(st.integers(0, 10**9))
def test_one_bit_of_a_long_body_is_noticed(at: int) -> None:
    body = bytearray(range(256)) * 200
    whole = sum_of(body)
    at %= 8 * len(body)
    body[at // 8] ^= 1 << at % 8

    assert sum_of(body) != whole


@given(st.binary(max_size=64))
def test_no_bytes_crash_the_decoder(data: bytes) -> None:
    with suppress(BadFrame):
        for frame in Decoder().feed(data):
            assert len(frame.body) <= len(data)
