"""A link's writing side, over a pair of sockets: nobody waits for a slow reader."""

from __future__ import annotations

import socket
import struct
import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from moe_core.frames import BadFrame, Decoder, Prefix, Sums, encode
from moe_worker.link import Link
from moe_worker.receive import Receiver
from moeops.v1.link_pb2 import LinkFrame
from tests.support.link import compute

LIMIT = 4 << 20


@dataclass
class Ends:
    link: Link
    near: socket.socket
    far: socket.socket
    lines: list[dict[str, Any]] = field(default_factory=list)

    def read(self, frames: int) -> list[LinkFrame]:
        decoder = Decoder()
        seen: list[LinkFrame] = []
        while len(seen) < frames:
            seen += [frame.header for frame in decoder.feed(self.far.recv(1 << 16))]
        return seen


@pytest.fixture
def ends() -> Iterator[Ends]:
    near, far = socket.socketpair()
    far.settimeout(20)
    lines: list[dict[str, Any]] = []
    link = Link(near, "peer", lambda event, **fields: lines.append(fields), LIMIT)
    yield Ends(link, near, far, lines)
    link.close("over")
    link.finish()
    far.close()


def result(attempt: int) -> LinkFrame:
    frame = LinkFrame()
    frame.result.attempt = attempt
    return frame


def beat() -> bytes:
    frame = LinkFrame()
    frame.heartbeat.queued_rows = 1
    return encode(frame)


def test_answers_keep_their_order_though_the_peer_reads_late(ends: Ends) -> None:
    rows = torch.zeros(500, 128)
    for attempt in range(1, 11):
        ends.link.under_way.add(attempt)
        ends.link.answer(result(attempt), rows)
    assert ends.link.unsent_bytes > 0
    assert ends.link.under_way == set()
    assert [frame.result.attempt for frame in ends.read(10)] == list(range(1, 11))


def test_the_bytes_of_an_answer_are_those_of_the_tensor(ends: Ends) -> None:
    rows = torch.randn(3, 8).to(torch.bfloat16)
    ends.link.answer(result(1), rows)
    (frame,) = Decoder().feed(ends.far.recv(1 << 16))
    assert bytes(frame.body) == rows.view(torch.uint8).numpy().tobytes()


def test_heartbeats_wait_for_no_one_and_never_pile_up(ends: Ends) -> None:
    ends.link.beat(beat())
    ends.link.answer(result(1), torch.zeros(3000, 128))
    unsent = ends.link.unsent_bytes
    assert unsent > 0
    for _ in range(100):
        ends.link.beat(beat())
    assert ends.link.unsent_bytes <= unsent
    kinds = [frame.WhichOneof("kind") for frame in ends.read(2)]
    assert kinds == ["heartbeat", "result"]


def test_a_peer_that_does_not_read_is_hung_up_on(ends: Ends) -> None:
    for attempt in range(10):
        ends.link.answer(result(attempt), torch.zeros(1000, 256))
    assert ends.link.closed
    assert ends.link.unsent_bytes == 0
    assert "the peer reads too slowly" in ends.lines[0]["reason"]


def test_a_link_that_is_gone_swallows_what_it_is_given(ends: Ends) -> None:
    ends.far.close()
    for attempt in range(50):
        ends.link.answer(result(attempt), torch.zeros(1000, 16))
    ends.link.beat(beat())
    assert ends.link.closed
    assert "sending failed" in ends.lines[0]["reason"]


def test_frames_are_read_however_they_are_cut(ends: Ends) -> None:
    body = bytes(range(256)) * 700
    frames = [(compute(n, [("ab" * 32, n)], hidden_size=8), body[: n * 1000]) for n in range(1, 90)]
    frames.append((compute(99, [("ab" * 32, 1)] * 3000, hidden_size=8), body))  # a large header
    stream = b"".join(encode(header, part) + part for header, part in frames)
    receiver = Receiver(ends.near)

    def send() -> None:
        for at in range(0, len(stream), 7919):
            ends.far.sendall(stream[at : at + 7919])

    sender = threading.Thread(target=send)
    sender.start()
    for number, (header, part) in enumerate(frames):
        seen, count = receiver.frame()
        assert (seen, count) == (header, len(part))
        if number % 3 == 0:
            receiver.skip(count)
        else:
            got = bytearray(count)
            receiver.body(memoryview(got))
            assert got == part
    sender.join()


def prefix(header_bytes: int, body_bytes: int) -> bytes:
    """Return the prefix of a header of b"\\xff\\xff\\xff"."""
    return Prefix(header_bytes, body_bytes, Sums(zlib.crc32(b"\xff\xff\xff"), 0)).pack()


@pytest.mark.parametrize(
    ("sent", "error", "sentence"),
    [
        pytest.param(b"", EOFError, "between frames", id="hung up"),
        pytest.param(b"\x01", EOFError, "in mid-frame", id="hung up in the prefix"),
        pytest.param(prefix(5, 0) + b"ab", EOFError, "in mid-frame", id="in the header"),
        pytest.param(prefix(2**31, 0), BadFrame, "frame header of", id="endless header"),
        pytest.param(prefix(1, 2**31), BadFrame, "frame body of", id="endless body"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", BadFrame, "frame header of", id="a browser"),
        pytest.param(prefix(3, 0) + b"\xff\xff\xff", BadFrame, "is not a", id="no LinkFrame"),
        pytest.param(prefix(3, 0) + b"\xff\xff\xfe", BadFrame, "damaged", id="another header"),
    ],
)
def test_what_is_no_frame_ends_the_link(
    ends: Ends, sent: bytes, error: type[Exception], sentence: str
) -> None:
    ends.far.sendall(sent)
    ends.far.close()
    with pytest.raises(error, match=sentence):
        Receiver(ends.near).frame()


def test_rows_that_were_damaged_on_the_way_are_not_computed(ends: Ends) -> None:
    body = bytes(range(200))
    header = encode(compute(1, [("ab" * 32, 1)], hidden_size=8), body)
    ends.far.sendall(header + body[:77] + b"\xff" + body[78:])
    receiver = Receiver(ends.near)

    _, count = receiver.frame()
    with pytest.raises(BadFrame, match="frame body of 200 bytes is damaged"):
        receiver.body(memoryview(bytearray(count)))


def test_an_idle_link_is_not_a_stalled_one(ends: Ends) -> None:
    receiver = Receiver(ends.near)
    ends.near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 1000))
    later = threading.Timer(0.05, ends.far.sendall, [encode(result(1))])
    later.start()
    assert receiver.frame()[0].result.attempt == 1
    later.join()
