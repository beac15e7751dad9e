"""A program of ours as a process of its own: its log, its signals, its end.

What the programs share; `tests.router.process` and `tests.worker.process` start them.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import ClassVar, TypeVar

START_S = 60.0
_METRICS = re.compile(r"event=metrics address=(\S+)")


@dataclass(slots=True)
class Program:
    """A running process; `told` are the groups of the line that says where it listens."""

    LISTENING: ClassVar[re.Pattern[str]]

    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)
    told: tuple[str, ...] = ()
    _listening: threading.Event = field(default_factory=threading.Event)
    _reader: threading.Thread | None = None

    @property
    def log(self) -> str:
        return "".join(self.lines)

    @property
    def metrics(self) -> str:
        """Where Prometheus connects; empty where it has no such port."""
        found = _METRICS.search(self.log)
        return found[1] if found else ""

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
        """Read its log, and wait until it listens; AssertionError with its log if it ends."""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        assert self._listening.wait(START_S), f"it does not listen:\n{self.log}"
        assert self.told, f"it ended with {self.process.wait(10)}:\n{self.log}"

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as stream:
            for line in stream:
                self.lines.append(line)
                if found := self.LISTENING.search(line):
                    self.told = found.groups()
                    self._listening.set()
        self._listening.set()


P = TypeVar("P", bound=Program)


def flags(values: Mapping[str, str]) -> list[str]:
    """Return the flags of a command line: `table_file="…"` is `--table-file`."""
    pairs = ((f"--{name.replace('_', '-')}", value) for name, value in values.items())
    return [part for pair in pairs for part in pair]


@contextmanager
def running(kind: type[P], arguments: Sequence[str], environment: Mapping[str, str]) -> Iterator[P]:
    """Start a module of Python (its name comes first); it listens then, and is gone afterwards."""
    process = subprocess.Popen(
        [sys.executable, "-m", *arguments],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    program = kind(process)
    try:
        program.follow()
        yield program
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.kill()
        program.wait()
