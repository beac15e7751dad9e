"""One operator as a process: what it uses, and what it asks the API server for."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.kube.server import KubeServer
from tests.operator.kube.stage import SYSTEM
from tests.support.cpu import cpu_s


@dataclass(frozen=True, slots=True)
class Program:
    """How an operator is started, and which service account is its own."""

    name: str
    command: tuple[str, ...]
    account: str


@dataclass(frozen=True, slots=True)
class Calls:
    """What one account asked for between two places of the audit log, but for its Lease."""

    all: int
    writes: int
    lease: int

    @classmethod
    def since(cls, server: KubeServer, account: str, place: int) -> Self:
        """Return what it has asked for after a place in the log until now."""
        own = [r for r in server.audit.since(place) if r.user.endswith(f":{account}")]
        rest = [request for request in own if request.resource != "leases"]
        return cls(len(rest), sum(request.changed for request in rest), len(own) - len(rest))


class Running:
    """An operator that runs; a context manager. It ends by SIGTERM, as in a cluster."""

    def __init__(self, server: KubeServer, program: Program, flags: Sequence[str], log: Path):
        config = str(server.kubeconfig(SYSTEM, program.account))
        environ = {**os.environ, "POD_NAME": program.name, "POD_NAMESPACE": SYSTEM}
        with log.open("ab") as file:
            self.began = time.perf_counter()
            self._process = subprocess.Popen(
                [*program.command, *flags],
                stdout=file,
                stderr=file,
                env={**environ, "KUBECONFIG": config},
            )
        self._log = log

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def check(self) -> None:
        """Raise RuntimeError, with the end of its log, where it has ended."""
        if self._process.poll() is not None:
            tail = self._log.read_text(errors="replace")[-2000:]
            raise RuntimeError(f"the operator has ended with {self._process.returncode}:\n{tail}")

    @property
    def cpu_s(self) -> float:
        """Processor time that it has used until now."""
        return cpu_s(self._process.pid)

    @property
    def peak_mb(self) -> float:
        """The most memory that was resident."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        (peak_kb,) = re.findall(r"VmHWM:\s+(\d+) kB", status)
        return int(peak_kb) / 1000
