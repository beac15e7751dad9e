"""Prints the story as it goes: chapters with the time since the begin, and lines below them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence


class Teller:
    """Writes to the terminal; knows when the story began."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def chapter(self, title: str) -> None:
        minutes, seconds = divmod(int(time.monotonic() - self._began), 60)
        print(f"\n[{minutes:d}:{seconds:02d}] {title}", flush=True)

    def line(self, text: str) -> None:
        print(f"       {text}", flush=True)

    def table(self, headers: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Print columns, the first one to the left and the others to the right."""
        lines = [list(headers), *(list(row) for row in rows)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(headers))]
        for line in lines:
            cells = (c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))
            self.line("  ".join([line[0].ljust(widths[0]), *cells]))

    def follow(self, look: Callable[[], str], done: Callable[[], bool], timeout_s: float) -> None:
        """Print what `look` says each time it changes, until `done`. Raises TimeoutError."""
        end, said = time.monotonic() + timeout_s, ""
        while True:
            finished = done()
            seen = look()
            if seen and seen != said:
                self.line(seen)
                said = seen
            if finished:
                return
            if time.monotonic() > end:
                raise TimeoutError(f"not done within {timeout_s:g} s; the last was: {said}")
            time.sleep(0.25)
