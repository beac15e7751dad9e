"""Listens for routers: a reading thread per link, and one thread whose heartbeats go to all.

A link's first frame is the inventory, and again whenever that changes, or the router says that it
knows a newer protocol. What a frame asks for is
admitted here and handed on; what breaks the framing closes that link and no other.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from moe_core.frames import FIRST_PROTOCOL, PROTOCOL, BadFrame, encode
from moe_core.identity import refusal
from moe_core.log import Log
from moe_core.tls import Folder, server_context
from moe_worker.address import Address
from moe_worker.link import Link, tune
from moe_worker.receive import Receiver, Stalled
from moe_worker.sealed import HANDSHAKE_S, Sealed
from moeops.v1.link_pb2 import Compute, LinkFrame

BEAT_S = 0.05
MAX_LINKS = 256
_BACKLOG = 64


@dataclass(frozen=True, slots=True)
class Handlers:
    """What a link needs from the rest of the worker."""

    compute: Callable[[Link, Receiver, Compute, int], None]
    heartbeat: Callable[[], LinkFrame]


@dataclass(frozen=True, slots=True)
class Guard:
    """Links have TLS, and only this name may open one."""

    certificate: Folder
    routers: str


class Links:
    """All links. `publish` tells them the inventory; before the first one nobody is let in."""

    def __init__(
        self, address: Address, handlers: Handlers, log: Log, guard: Guard | None = None
    ) -> None:
        self._listener, self.address = _listen(address)
        self._handlers = handlers
        self._log = log
        self._guard = guard
        self._inventory = LinkFrame()
        self._links: set[Link] = set()
        self._lock = threading.Lock()
        self._ended = threading.Event()

    def publish(self, inventory: LinkFrame) -> bool:
        """Send an inventory to all, now and to those to come; False if it is the same as before."""
        with self._lock:
            if inventory == self._inventory:
                return False
            self._inventory = inventory
            for link in self._links:
                link.tell(inventory)
        return True

    def accept(self) -> None:
        """Let routers in until stopped; the body of a thread."""
        while not self._ended.is_set():
            try:
                sock, _ = self._listener.accept()
            except OSError as error:
                if not self._ended.wait(0.1):
                    self._log("accepting_failed", reason=error.strerror)
                continue
            sealed = self._seal(sock)
            link = Link(sock, _peer(sock), self._log, sealed=sealed)
            threading.Thread(
                target=self._serve, args=(link, sock, sealed), name=f"read {link.peer}", daemon=True
            ).start()

    def beat(self) -> None:
        """Send heartbeats until stopped; the body of a thread that does nothing else."""
        while not self._ended.wait(BEAT_S):
            with self._lock:
                links = list(self._links)
            if not links:
                continue
            beat = self._handlers.heartbeat()
            spoken = [(link, link.protocol) for link in links]
            frames = {known: encode(beat, protocol=known) for _, known in spoken}
            for link, known in spoken:
                link.beat(frames[known])

    def stop(self, flush_s: float) -> None:
        """Send what is unsent, for at most so long, and hang up."""
        until = time.monotonic() + flush_s
        with self._lock:
            links = list(self._links)
        while any(link.unsent_bytes for link in links) and time.monotonic() < until:
            time.sleep(0.01)
        self._ended.set()
        self._listener.close()
        if self.address.path:
            Path(self.address.path).unlink(missing_ok=True)
        for link in links:
            link.close("the worker ends")

    def _serve(self, link: Link, sock: socket.socket, sealed: Sealed | None) -> None:
        """Read one link to its end; the body of its reading thread."""
        try:
            tune(sock)
            if self._known(link, sealed) and self._welcome(link):
                receiver = Receiver(sock, sealed)
                while True:
                    self._handle(link, receiver)
        except EOFError as error:
            link.close(f"the peer hung up {error}")
        except (BadFrame, Stalled) as error:
            link.close(str(error))
        except OSError as error:
            link.close(f"reading failed: {error.strerror}")
        except Exception as error:  # no memory, say: one link's trouble is not the others'
            link.close(f"{type(error).__name__}: {error}")
        finally:
            with self._lock:
                self._links.discard(link)
            link.finish()

    def _seal(self, sock: socket.socket) -> Sealed | None:
        """Links that begin now go by the certificate that there is now."""
        if self._guard is None:
            return None
        return Sealed(sock, server_context(self._guard.certificate.newest()))

    def _known(self, link: Link, sealed: Sealed | None) -> bool:
        if self._guard is None or sealed is None:
            return True
        try:
            names = sealed.shake_hands()
        except BlockingIOError:
            raise Stalled(f"no handshake within {HANDSHAKE_S} s") from None
        except ssl.SSLError as error:
            link.close(f"the handshake failed: {error.reason or error.strerror}")
            return False
        reason = refusal(names, {self._guard.routers})
        if reason:
            link.close(reason)
        return not reason

    def _welcome(self, link: Link) -> bool:
        with self._lock:
            if len(self._links) >= MAX_LINKS:
                link.close(f"there are {MAX_LINKS} links already")
                return False
            link.tell(self._inventory)
            self._links.add(link)
        self._log("link_opened", peer=link.peer)
        return True

    def _greeted(self, link: Link, protocol: int) -> None:
        """Speak as the router knows; what was said before that had, perhaps, no sums."""
        with self._lock:
            link.protocol = min(max(protocol, FIRST_PROTOCOL), PROTOCOL)
            link.tell(self._inventory)

    def _handle(self, link: Link, receiver: Receiver) -> None:
        """Take one frame; of a kind that is not known here, a newer one perhaps, only its bytes."""
        frame, body_bytes = receiver.frame()
        kind = frame.WhichOneof("kind")
        if kind == "compute":
            self._handlers.compute(link, receiver, frame.compute, body_bytes)
        elif kind is None:
            receiver.skip(body_bytes)
        elif kind == "hello":
            receiver.skip(body_bytes)
            self._greeted(link, frame.hello.protocol)
        else:
            raise BadFrame(f"a router sent {kind}; it must be compute or hello")


def _listen(address: Address) -> tuple[socket.socket, Address]:
    """Return a listening socket and where it listens, with the port it got."""
    if address.path:
        Path(address.path).unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(address.path)
        listener.listen(_BACKLOG)
        return listener, address
    family, _, _, _, place = socket.getaddrinfo(
        address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.create_server(place, family=family, backlog=_BACKLOG)
    return listener, Address(address.host, listener.getsockname()[1])


def _peer(sock: socket.socket) -> str:
    try:
        name = sock.getpeername()
    except OSError:
        return "gone"
    return f"{name[0]}:{name[1]}" if isinstance(name, tuple) else f"unix#{sock.fileno()}"
