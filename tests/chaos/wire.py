"""A wire to a network namespace of its own that can be slow, lose packets, or be cut.

    with wire() as made:
        spawn("moe_worker", module="tests.chaos.inside", variables=made.variables, link=made.far)
        made.fault = Slow(0.02)

Its ends are two TUN devices of the kernel, so TCP of both sides meets real packets that come late
or never: it sends again, waits, and hears no farewell from a peer that is cut off. The kernel's own
`netem` does the same where it is built in, which it often is not. Only root may make one.
"""

from __future__ import annotations

import fcntl
import heapq
import os
import select
import shutil
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final

_TUN: Final = Path("/dev/net/tun")
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
_MTU: Final = 9000
NAMESPACE: Final = "MOE_TEST_NAMESPACE"


def missing() -> str:
    """Return what keeps this machine from making one; nothing where it can."""
    if os.geteuid() != 0:
        return "a network namespace takes root"
    if not _TUN.exists() or shutil.which("ip") is None:
        return "a wire takes /dev/net/tun and iproute2"
    if subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False).returncode:
        return "this root may make no network namespaces"
    return ""


Fault = Callable[[], float | None]
"""Says of a packet how many seconds late it comes; None is never."""


def healthy() -> float | None:
    """Have each packet come at once."""
    return 0.0


def cut() -> float | None:
    """Have none come, and nobody told."""
    return None


@dataclass(frozen=True)
class Slow:
    """Packets come this late, more or less: a share of it, either way, is chance."""

    seconds: float
    share: float = 0.2
    random: Random = field(default_factory=lambda: Random(7))

    def __call__(self) -> float | None:
        return self.seconds * (1 + self.random.uniform(-self.share, self.share))


@dataclass(frozen=True)
class Lossy:
    """A share of the packets never comes."""

    share: float
    random: Random = field(default_factory=lambda: Random(7))

    def __call__(self) -> float | None:
        return None if self.random.random() < self.share else 0.0


class Wire:
    """Carries packets while it is open; `struck` counts those that came late or never."""

    def __init__(self, namespace: str, near: int, far: int, far_host: str) -> None:
        self.variables = {NAMESPACE: namespace}
        self.far = f"{far_host}:0"
        self.fault: Fault = healthy
        self.struck = 0
        self._ends = {near: far, far: near}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._carry, name="wire", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._ended.set()
        self._thread.join()
        for end in self._ends:
            os.close(end)

    def _carry(self) -> None:
        """Take packets in and give them out when they are due, in the order of that."""
        under_way: list[tuple[float, int, int, bytes]] = []
        count = 0
        while not self._ended.is_set():
            now_s = time.monotonic()
            while under_way and under_way[0][0] <= now_s:
                _, _, end, packet = heapq.heappop(under_way)
                os.write(end, packet)
            wait_s = min(under_way[0][0] - now_s, 0.1) if under_way else 0.1
            for end in select.select(list(self._ends), [], [], wait_s)[0]:
                packet = os.read(end, _MTU + 64)
                after_s, count = self.fault(), count + 1
                self.struck += after_s != 0
                if after_s is not None:
                    due_s = time.monotonic() + after_s
                    heapq.heappush(under_way, (due_s, count, self._ends[end], packet))


@contextmanager
def wire() -> Iterator[Wire]:
    """Make a namespace and a wire to it, and end both afterwards; not where `missing` says why."""
    name, pid = f"moe{os.getpid():x}", os.getpid()
    # 198.18.0.0/15 is for measurements of networks: nobody else here has it.
    net = f"198.18.{pid >> 6 & 255}.{{}}"
    near, far = net.format(4 * (pid & 63) + 1), net.format(4 * (pid & 63) + 2)
    _ip("netns", "add", name)
    try:
        here, there = _device(f"{name}a"), _device(f"{name}b")
        _ip("link", "set", f"{name}b", "netns", name)
        for device, address, within in ((f"{name}a", near, ()), (f"{name}b", far, ("-n", name))):
            _ip(*within, "address", "add", f"{address}/30", "dev", device)
            _ip(*within, "link", "set", device, "mtu", str(_MTU), "up")
        made = Wire(name, here, there, far)
        try:
            yield made
        finally:
            made.close()
    finally:
        _ip("netns", "delete", name)


def _device(name: str) -> int:
    """Return an open TUN device, which lives as long as that."""
    opened = os.open(_TUN, os.O_RDWR | os.O_CLOEXEC)
    fcntl.ioctl(opened, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI))
    return opened


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)
