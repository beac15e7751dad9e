"""One link to a router, writing side: answers and heartbeats go out, a slow reader stalls nobody.

What the socket takes at once is sent by whoever has it; the rest waits for a thread of the link's
own, and past a bound the link is closed.
"""

from __future__ import annotations

import socket
import threading
from collections import deque

import torch

from moe_core.frames import FIRST_PROTOCOL, encode
from moe_core.log import Log
from moe_worker.sealed import Sealed
from moeops.v1.link_pb2 import LinkFrame

MAX_UNSENT_BYTES = 128 << 20
_KEEPALIVE_S, _KEEPALIVE_EVERY_S, _KEEPALIVE_TRIES = 5, 2, 3
_UNACKNOWLEDGED_MS = 10_000


def tune(sock: socket.socket) -> None:
    """Send small frames at once, and notice a peer that is gone without a word."""
    if sock.family == socket.AF_UNIX:
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _KEEPALIVE_EVERY_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _KEEPALIVE_TRIES)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNACKNOWLEDGED_MS)


class Link:
    """The sending end; any thread may use it.

    `under_way` are the attempts not answered yet, `protocol` is how the peer is spoken to.
    """

    def __init__(
        self,
        sock: socket.socket,
        peer: str,
        log: Log,
        max_unsent_bytes: int = MAX_UNSENT_BYTES,
        *,
        sealed: Sealed | None = None,
    ) -> None:
        self._sock, self._sealed = sock, sealed
        self.peer = peer
        self._log = log
        self._max_unsent_bytes = max_unsent_bytes
        self.under_way: set[int] = set()
        self.protocol = FIRST_PROTOCOL
        self._unsent: deque[memoryview] = deque()
        self._unsent_bytes = 0
        self._closed = False
        self._writer: threading.Thread | None = None
        self._change = threading.Condition()

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def unsent_bytes(self) -> int:
        return self._unsent_bytes

    def answer(self, frame: LinkFrame, body: torch.Tensor | None) -> None:
        """Send a Result with rows (T, H), which must not be written to afterwards."""
        self.under_way.discard(frame.result.attempt)
        if body is None:
            self.tell(frame)
            return
        raw = body.contiguous().view(torch.uint8).numpy().data.cast("B")
        self.send(encode(frame, raw, self.protocol), raw)

    def tell(self, frame: LinkFrame) -> None:
        """Send a frame without a body."""
        self.send(encode(frame, protocol=self.protocol))

    def send(self, *parts: bytes | memoryview) -> None:
        """Send the parts of a frame in order, as far as the socket takes them at once."""
        views = [memoryview(part) for part in parts]
        with self._change:
            if self._closed:
                return
            if self._sealed is not None:
                views = self._sealed.seal(views)
            if not self._unsent:
                views = self._send_now(views)
            self._unsent.extend(views)
            self._unsent_bytes += sum(map(len, views))
            if self._unsent_bytes > self._max_unsent_bytes:
                self._close(f"{self._unsent_bytes} bytes unsent: the peer reads too slowly")
            elif self._unsent:
                self._wake_writer()

    def beat(self, frame: bytes) -> None:
        """Send a heartbeat, unless answers wait: those are sign of life enough."""
        with self._change:
            if self._closed or self._unsent:
                return
        self.send(frame)

    def close(self, reason: str) -> None:
        """Hang up, dropping what is unsent; the reading thread ends by that."""
        with self._change:
            self._close(reason)

    def finish(self) -> None:
        """Close the socket itself; called once, by the reading thread, after `close`."""
        if self._writer is not None:
            self._writer.join()
        self._sock.close()

    def _send_now(self, views: list[memoryview]) -> list[memoryview]:
        """Send without waiting; return what is left."""
        try:
            sent = self._sock.sendmsg(views, [], socket.MSG_DONTWAIT)
        except BlockingIOError:
            return views
        except OSError as error:
            self._close(f"sending failed: {error.strerror}")
            return []
        while views and sent >= len(views[0]):
            sent -= len(views.pop(0))
        if views:
            views[0] = views[0][sent:]
        return views

    def _wake_writer(self) -> None:
        if self._writer is None:
            name = f"write {self.peer}"
            self._writer = threading.Thread(target=self._write, name=name, daemon=True)
            self._writer.start()
        self._change.notify_all()

    def _write(self) -> None:
        """Send what the socket did not take at once; the body of the writing thread."""
        while True:
            with self._change:
                while not self._unsent and not self._closed:
                    self._change.wait()
                if self._closed:
                    return
                view = self._unsent[0]
            try:
                self._sock.sendall(view)
            except OSError as error:
                self.close(f"sending failed: {error.strerror}")
                return
            with self._change:
                if self._closed:
                    return
                self._unsent.popleft()
                self._unsent_bytes -= len(view)

    def _close(self, reason: str) -> None:
        if self._closed:
            return
        self._closed = True
        self._unsent.clear()
        self._unsent_bytes = 0
        self._log("link_closed", peer=self.peer, reason=reason)
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # the peer was faster
        finally:
            self._change.notify_all()
