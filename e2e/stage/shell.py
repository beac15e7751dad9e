"""One bash for several commands, as in a person's terminal: variables and jobs last."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

_LAST_WORDS_S: Final = 10.0


class Shell:
    """A context manager; whatever still runs in it is ended with it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # Printed after each command, so that it is known where its output ends.
        self._mark = secrets.token_hex(16)

    def __enter__(self) -> Self:
        self._bash = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=self._folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            start_new_session=True,
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._bash.pid, signal.SIGTERM)
        try:
            self._bash.communicate(timeout=_LAST_WORDS_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._bash.pid, signal.SIGKILL)
            self._bash.communicate()

    def run(self, command: str) -> tuple[list[str], int]:
        """Return what a command printed on either stream, and how it ended."""
        assert self._bash.stdin is not None
        assert self._bash.stdout is not None
        self._bash.stdin.write(f"{command}\nprintf '\\n%s %s\\n' {self._mark} $?\n")
        self._bash.stdin.flush()
        printed: list[str] = []
        for line in self._bash.stdout:
            mark, _, code = line.rstrip("\n").partition(" ")
            if mark == self._mark:
                return _without_last_gap(printed), int(code)
            printed.append(line.rstrip())
        raise EOFError(f"the shell ended in {command!r}: {printed}")


def _without_last_gap(lines: list[str]) -> list[str]:
    """Take away the line end that stands before the mark."""
    return lines[:-1] if lines and not lines[-1] else lines
