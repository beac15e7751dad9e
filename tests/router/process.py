"""Starts real routers, each a process of its own, for tests of any part.

    with spawn(mixture="tiny", table_file=str(file), workers=worker.link) as router:
        connect_to(router.address)

The port is a free one; the process is gone after the block. `options` are the router's flags.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc

from moeops.v1.router_pb2 import DescribeRequest, DescribeResponse
from moeops.v1.router_pb2_grpc import RouterStub

START_S = 60.0
_LISTENING = re.compile(r"event=listening address=(\S+) port=(\d+)")


@dataclass(slots=True)
class RouterProcess:
    """A running router; `address` is where clients connect."""

    process: subprocess.Popen[str]
    address: str = ""
    lines: list[str] = field(default_factory=list)
    _listening: threading.Event = field(default_factory=threading.Event)
    _reader: threading.Thread | None = None

    def describe(self) -> DescribeResponse:
        with grpc.insecure_channel(self.address) as channel:
            response: DescribeResponse = RouterStub(channel).Describe(
                DescribeRequest(), wait_for_ready=True, timeout=10
            )
            return response

    def wait_until_routable(
        self, sha256: Collection[str], *, workers: int = 1, timeout_s: float = START_S
    ) -> None:
        """Wait for a table, and until `workers` live links offer each of these artifacts."""
        until = time.monotonic() + timeout_s
        while True:
            seen = self.describe()
            offers = [digest for link in seen.links for digest in link.sha256]
            if seen.epoch and all(offers.count(digest) >= workers for digest in sha256):
                return
            assert time.monotonic() < until, f"not routable: {seen}\n{self.log}"
            time.sleep(0.02)

    def wait_for_epoch(self, epoch: int, timeout_s: float = START_S) -> None:
        until = time.monotonic() + timeout_s
        while self.describe().epoch < epoch:
            assert time.monotonic() < until, f"never saw epoch {epoch}\n{self.log}"
            time.sleep(0.02)

    @property
    def log(self) -> str:
        return "".join(self.lines)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        """End it as a power cut would."""
        self.process.kill()
        self.process.wait()

    def wait(self, timeout_s: float = 40.0) -> int:
        """Wait for its end; return the exit status."""
        status = self.process.wait(timeout_s)
        if self._reader is not None:
            self._reader.join(timeout_s)
        return status

    def follow(self) -> None:
        """Read its log, and wait until it listens."""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        assert self._listening.wait(START_S), f"the router does not listen:\n{self.log}"
        assert self.address, f"the router ended with {self.process.wait(10)}:\n{self.log}"

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as stream:
            for line in stream:
                self.lines.append(line)
                if found := _LISTENING.search(line):
                    address, port = found.groups()
                    host = address.rpartition(":")[0]
                    self.address = address if host == "unix" else f"{host}:{port}"
                    self._listening.set()
        self._listening.set()


@contextmanager
def spawn(**options: str) -> Iterator[RouterProcess]:
    """Start a router with these flags (`table_file="…"` is `--table-file`); it listens then."""
    flags = {"listen": "127.0.0.1:0", **options}
    pairs = [p for name, value in flags.items() for p in (f"--{name.replace('_', '-')}", value)]
    process = subprocess.Popen(
        [sys.executable, "-m", "moe_router", *pairs],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
    router = RouterProcess(process)
    try:
        router.follow()
        yield router
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.kill()
        router.wait()
