"""Says what is going on and for how long, and runs the programs that do it.

Every step prints one line when it starts to take long and one when it is done. Programs write
into a log; its last lines are shown only when the program fails.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TextIO

Command = list[str | Path]


class StepFailed(Exception):
    """A step could not be done; the message says what a person should do or read."""


class Progress:
    """Prints steps with the time since the start, and keeps the log of what was run."""

    def __init__(self, log: Path, out: TextIO = sys.stdout) -> None:
        self._log = log
        self._out = out
        self._began = time.monotonic()
        self._lock = threading.Lock()
        log.parent.mkdir(parents=True, exist_ok=True)

    def say(self, text: str) -> None:
        """Print one line with the time since the start."""
        with self._lock:
            clear = "\r\x1b[K" if self._out.isatty() else ""
            elapsed = time.monotonic() - self._began
            print(f"{clear}[{elapsed:6.1f}s] {text}", file=self._out, flush=True)

    @contextmanager
    def step(self, text: str) -> Iterator[None]:
        """Name what is being done; past 2 s the line shows that it still goes on."""
        done = threading.Event()
        ticker = threading.Thread(target=self._tick, args=(text, done), daemon=True)
        began = time.monotonic()
        ticker.start()
        try:
            yield
        except BaseException:
            done.set()
            ticker.join()
            self.say(f"{text}: stopped after {time.monotonic() - began:.1f}s")
            raise
        done.set()
        ticker.join()
        self.say(f"{text}: {time.monotonic() - began:.1f}s")

    def run(
        self,
        command: Sequence[str | Path],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        stdin: str | None = None,
        timeout_s: float | None = None,
    ) -> str:
        """Run a program and return what it wrote to stdout; its stderr goes to the log.

        `env` is added to the environment. Raises StepFailed with the end of the log when the
        program is missing, fails or runs past `timeout_s`.
        """
        words = [str(word) for word in command]
        with self._log.open("a+b") as log:
            log.write(f"\n$ {' '.join(words)}\n".encode())
            log.flush()
            start = log.tell()
            try:
                status, stdout = _run(words, cwd, env, stdin, log, timeout_s)
            except FileNotFoundError:
                raise StepFailed(f"the program {words[0]} is not there") from None
            except subprocess.TimeoutExpired:
                raise StepFailed(f"{' '.join(words[:3])} took more than {timeout_s} s") from None
            log.seek(0, os.SEEK_END)
            log.write(stdout)
            if status:
                log.flush()
                log.seek(start)
                tail = log.read().decode(errors="replace").strip().splitlines()[-25:]
                said = "\n".join(f"    {line}" for line in tail)
                raise StepFailed(
                    f"{' '.join(words[:4])} ended with {status}:\n{said}\n"
                    f"(everything is in {self._log})"
                )
        return stdout.decode(errors="replace")

    def succeeds(
        self,
        command: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> bool:
        """Tell whether a program can be run and ends with 0."""
        try:
            self.run(command, env=env, timeout_s=timeout_s)
        except StepFailed:
            return False
        return True

    def _tick(self, text: str, done: threading.Event) -> None:
        live = self._out.isatty()
        began = time.monotonic()
        wait_s = 2.0
        while not done.wait(wait_s):
            wait_s = 1.0 if live else 15.0
            seconds = time.monotonic() - began
            if live:
                with self._lock:
                    print(f"\r\x1b[K  … {text} {seconds:.0f}s", end="", file=self._out, flush=True)
            else:
                self.say(f"{text} … {seconds:.0f}s")


def _run(
    words: list[str],
    cwd: Path | None,
    env: Mapping[str, str] | None,
    stdin: str | None,
    log: IO[bytes],
    timeout_s: float | None,
) -> tuple[int, bytes]:
    """Run a program in a process group of its own; return its status and what it wrote.

    A Ctrl-C in the terminal thus reaches only us: we stop the whole group on the way out, and
    what is run to clean up afterwards is not interrupted.
    """
    with subprocess.Popen(
        words,
        cwd=cwd,
        env={**os.environ, **env} if env else None,
        stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        process_group=0,
    ) as process:
        try:
            stdout, _ = process.communicate(None if stdin is None else stdin.encode(), timeout_s)
        except BaseException:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
    return process.returncode, stdout
