"""TLS on a link, whose reader and writers are different threads.

OpenSSL takes one call at a time for each connection. So what is sealed and opened goes through
memory, under a lock that is never held while the socket is waited for. It frames nothing.
"""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from collections.abc import Sequence

from moe_core.tls import dns_names

_BUFFER_BYTES = 1 << 17
HANDSHAKE_S = 5


class Sealed:
    """One end of a connection. `seal` is any thread's, the rest is the reading thread's."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        self._sock = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._lock = threading.Lock()
        self._buffer = memoryview(bytearray(_BUFFER_BYTES))

    def shake_hands(self) -> tuple[str, ...]:
        """Return the DNS names of the peer's certificate. Raises OSError, EOFError."""
        self._sock.setsockopt(
            socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", HANDSHAKE_S, 0)
        )
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._sock.sendall(self._outgoing.read())
                if not self._feed():
                    raise EOFError("in the handshake") from None
            except ssl.SSLError:
                self._sock.sendall(self._outgoing.read())  # the alert says why
                raise
            else:
                self._sock.sendall(self._outgoing.read())
                return dns_names(self._tls.getpeercert())

    def seal(self, views: Sequence[memoryview]) -> list[memoryview]:
        """Return what is to be sent in place of these, in the order of the calls."""
        with self._lock:
            for view in views:
                left = view
                while left:
                    left = left[self._tls.write(left) :]
            return [memoryview(self._outgoing.read())]

    def recv_into(self, into: memoryview) -> int:
        """Return as a socket's does: 0 where the peer hung up. Raises OSError."""
        while True:
            with self._lock:
                try:
                    return self._tls.read(len(into), into)  # type: ignore[return-value]  # the count
                except ssl.SSLWantReadError:
                    pass
                except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                    return 0
            if not self._feed():
                return 0

    def _feed(self) -> int:
        got = self._sock.recv_into(self._buffer)
        with self._lock:
            self._incoming.write(self._buffer[:got])
        return got
