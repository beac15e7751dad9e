"""Starts real workers, each a process of its own, for tests of any part.

    with spawn([expert.assigned("e0")], hidden_size=32) as worker:
        connect_to(worker.link)

Ports are free ones unless said otherwise; the process is gone after the block, with its children.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from moeops.v1.worker_pb2 import DescribeWorkerRequest, DescribeWorkerResponse
from moeops.v1.worker_pb2_grpc import WorkerStub

START_S = 60.0
# Torch takes seconds to import where there is no bytecode of it.
_BYTECODE = str(Path(tempfile.gettempdir()) / "moeops-bytecode")
_LISTENING = re.compile(r"event=listening link=(\S+) control=(\S+)")


@dataclass(slots=True)
class WorkerProcess:
    """A running worker. `link` and `control` are `host:port` or `unix:/path`."""

    process: subprocess.Popen[str]
    link: str = ""
    control: str = ""
    lines: list[str] = field(default_factory=list)
    _listening: threading.Event = field(default_factory=threading.Event)
    _reader: threading.Thread | None = None

    def wait_until_ready(self, timeout_s: float = START_S) -> None:
        """Wait until everything assigned is served; AssertionError with its log if it is not."""
        until = time.monotonic() + timeout_s
        with grpc.insecure_channel(self.control) as channel:
            stub = WorkerStub(channel)
            while True:
                left = max(until - time.monotonic(), 0.1)
                seen = stub.Describe(DescribeWorkerRequest(), wait_for_ready=True, timeout=left)
                if all(item.phase == item.SERVING for item in seen.assigned):
                    return
                assert time.monotonic() < until, f"not ready: {seen.assigned}\n{self.log}"
                time.sleep(0.02)

    def describe(self) -> DescribeWorkerResponse:
        with grpc.insecure_channel(self.control) as channel:
            stub = WorkerStub(channel)
            response: DescribeWorkerResponse = stub.Describe(
                DescribeWorkerRequest(), wait_for_ready=True, timeout=10
            )
            return response

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
        assert self._listening.wait(START_S), f"the worker does not listen:\n{self.log}"
        assert self.link, f"the worker ended with {self.process.wait(10)}:\n{self.log}"

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as stream:
            for line in stream:
                self.lines.append(line)
                if found := _LISTENING.search(line):
                    self.link, self.control = found.groups()
                    self._listening.set()
        self._listening.set()


def environment() -> dict[str, str]:
    """Return this process's variables, with one thread and a place for bytecode."""
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPYCACHEPREFIX": _BYTECODE}
    variables.pop("PYTHONDONTWRITEBYTECODE", None)
    return variables


def command(
    assignment: Sequence[Mapping[str, Any]], hidden_size: int, options: Mapping[str, str]
) -> list[str]:
    """Return the command line of a worker on free ports of this host."""
    flags = {
        "assignment": json.dumps(list(assignment)),
        "hidden-size": str(hidden_size),
        "link": "127.0.0.1:0",
        "control": "127.0.0.1:0",
        **{name.replace("_", "-"): value for name, value in options.items()},
    }
    pairs = [part for name, value in flags.items() for part in (f"--{name}", value)]
    return [sys.executable, "-m", "moe_worker", *pairs]


@contextmanager
def spawn(
    assignment: Sequence[Mapping[str, Any]], hidden_size: int, *, ready: bool = True, **options: str
) -> Iterator[WorkerProcess]:
    """Start a worker; by default wait until it is ready. `options` are its flags: `dtype="…"`.

    `assignment` is a list of {"expertId", "version", "uri", "sha256", "layers"};
    `tests.support.artifacts.write_expert(…).assigned(id)` makes one.
    """
    process = subprocess.Popen(
        command(assignment, hidden_size, options),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    worker = WorkerProcess(process)
    try:
        worker.follow()
        if ready:
            worker.wait_until_ready()
        yield worker
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.kill()
        worker.wait()
