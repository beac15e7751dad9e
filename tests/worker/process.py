"""Starts real workers, each a process of its own, for tests of any part.

    with spawn([expert.assigned("e0")], hidden_size=32) as worker:
        connect_to(worker.link)

Ports are free ones unless said otherwise; the process is gone after the block, with its children.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

from moeops.v1.worker_pb2 import DescribeWorkerRequest, DescribeWorkerResponse
from moeops.v1.worker_pb2_grpc import WorkerStub
from tests.support.program import START_S, Program, flags, running

# Torch takes seconds to import where there is no bytecode of it.
_BYTECODE = str(Path(tempfile.gettempdir()) / "moeops-bytecode")


class WorkerProcess(Program):
    """A running worker. `link` and `control` are `host:port` or `unix:/path`."""

    LISTENING = re.compile(r"event=listening link=(\S+) control=(\S+)")

    @property
    def link(self) -> str:
        return self.told[0]

    @property
    def control(self) -> str:
        return self.told[1]

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


def environment() -> dict[str, str]:
    """Return this process's variables, with one thread and a place for bytecode."""
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPYCACHEPREFIX": _BYTECODE}
    variables.pop("PYTHONDONTWRITEBYTECODE", None)
    return variables


@contextmanager
def spawn(
    assignment: Sequence[Mapping[str, Any]],
    hidden_size: int,
    *,
    ready: bool = True,
    variables: Mapping[str, str] | None = None,
    module: str = "moe_worker",
    **options: str,
) -> Iterator[WorkerProcess]:
    """Start a worker; by default wait until it is ready. `options` are its flags: `dtype="…"`.

    `assignment` is a list of {"expertId", "version", "uri", "sha256", "layers"};
    `tests.support.artifacts.write_expert(…).assigned(id)` makes one.
    """
    arguments = flags(
        {
            "assignment": json.dumps(list(assignment)),
            "hidden_size": str(hidden_size),
            "link": "127.0.0.1:0",
            "control": "127.0.0.1:0",
            "metrics": "127.0.0.1:0",
            **options,
        }
    )
    around = environment() | dict(variables or {})
    with running(WorkerProcess, [module, *arguments], around) as worker:
        if ready:
            worker.wait_until_ready()
        yield worker
