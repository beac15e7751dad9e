"""A proxy between a router and a worker that does to their frames what a test asks for.

    with faulty_link(worker.link) as link:
        spawn_router(workers=link.address)
        link.fault = Corrupt(0.01, seed=1)
        ...
        assert link.struck

Frames are told apart by the project's own decoder. A fault says what goes on in a frame's place.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Protocol

import ml_dtypes
import numpy as np

from moe_core.frames import BadFrame, Decoder, Frame, encode


class Cut(Exception):
    """The connection is to be reset after these bytes."""

    def __init__(self, last: bytes) -> None:
        self.last = last


class Fault(Protocol):
    """What happens to frames."""

    def strike(self, frame: Frame, whole: bytes) -> bytes | None:
        """Return what goes on in place of a frame; None leaves it as it is. Raises Cut."""
        ...


class Healthy:
    """Nothing."""

    def strike(self, frame: Frame, whole: bytes) -> bytes | None:
        return None


@dataclass
class Corrupt:
    """One bit is flipped in a share of the frames, of whatever kind and either way."""

    share: float
    random: Random = field(default_factory=lambda: Random(5))

    def strike(self, frame: Frame, whole: bytes) -> bytes | None:
        if self.random.random() >= self.share:
            return None
        damaged, bit = bytearray(whole), self.random.randrange(8 * len(whole))
        damaged[bit // 8] ^= 1 << bit % 8
        return bytes(damaged)


@dataclass
class _OnResults:
    """Strikes every n-th result, from the first on."""

    every: int = 1
    seen: int = 0

    def strike(self, frame: Frame, whole: bytes) -> bytes | None:
        if frame.header.WhichOneof("kind") != "result":
            return None
        self.seen += 1
        return self.change(frame, whole) if self.seen % self.every == 1 % self.every else None

    def change(self, frame: Frame, whole: bytes) -> bytes:
        raise NotImplementedError


class Reset(_OnResults):
    """The connection is reset in the middle of an answer."""

    def change(self, frame: Frame, whole: bytes) -> bytes:
        raise Cut(whole[: len(whole) // 2])


class Garbage(_OnResults):
    """Bytes that mean nothing, in turn with whole frames that are no answer to what was asked."""

    def change(self, frame: Frame, whole: bytes) -> bytes:
        if self.seen % 2:
            return np.random.default_rng(self.seen).bytes(len(whole))
        half = bytes(frame.body[: len(frame.body) // 2])
        return encode(frame.header, half, frame.protocol) + half


class NotFinite(_OnResults):
    """All rows are NaN, and said to be so, as by an honest worker on a broken processor."""

    def change(self, frame: Frame, whole: bytes) -> bytes:
        for group in frame.header.result.groups:
            group.nonfinite_rows = 1
            group.norm_sum = 0
        body = np.full(len(frame.body) // 2, np.nan, ml_dtypes.bfloat16).tobytes()
        return encode(frame.header, body, frame.protocol) + body


class Swallow(_OnResults):
    """No answer comes, while heartbeats do: the computing thread hangs."""

    def change(self, frame: Frame, whole: bytes) -> bytes:
        return b""


@dataclass
class Delay(_OnResults):
    """Answers come late, one behind the other."""

    seconds: float = 0.0

    def change(self, frame: Frame, whole: bytes) -> bytes:
        time.sleep(self.seconds)
        return whole


class FaultyLink:
    """Hands frames to and fro between `address` and a worker; `struck` counts those changed."""

    def __init__(self, worker: str) -> None:
        host, _, port = worker.rpartition(":")
        self._worker = host, int(port)
        self.fault: Fault = Healthy()
        self.struck = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                here, _ = self._listener.accept()
                try:
                    there = socket.create_connection(self._worker)
                except OSError:
                    here.close()
                    continue
                self._sockets += [here, there]
                for pair in ((here, there), (there, here)):
                    threading.Thread(target=self._pump, args=pair, daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        sink.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        decoder = Decoder()
        try:
            while data := source.recv(1 << 16):
                for frame in decoder.feed(data):
                    sink.sendall(self._through(frame))
        except Cut as cut:
            with contextlib.suppress(OSError):
                sink.sendall(cut.last)
                _reset(sink)
        except (OSError, BadFrame):
            pass
        finally:
            for one in (source, sink):
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def _through(self, frame: Frame) -> bytes:
        whole = encode(frame.header, frame.body, frame.protocol) + frame.body
        try:
            changed = self.fault.strike(frame, whole)
        except Cut:
            self.struck += 1
            raise
        if changed is None:
            return whole
        self.struck += 1
        return changed


def _reset(sock: socket.socket) -> None:
    """Close without a farewell: the peer reads ECONNRESET."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@contextmanager
def faulty_link(worker: str) -> Iterator[FaultyLink]:
    """Open a proxy to a worker's link and close it afterwards."""
    made = FaultyLink(worker)
    try:
        yield made
    finally:
        made.close()
