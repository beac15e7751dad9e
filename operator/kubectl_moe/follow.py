"""Watches an object until it has settled or time is up; clock and terminal are passed in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TextIO

from kubectl_moe.health import EXITS, Diagnosis, Exit, settled


@dataclass(frozen=True, slots=True)
class Clock:
    """Monotonic seconds, and how to let some pass."""

    now: Callable[[], float]
    sleep: Callable[[float], None]


def wait(
    look: Callable[[], Diagnosis],
    clock: Clock,
    timeout_s: float,
    progress: TextIO,
    interval_s: float = 0.5,
) -> Exit:
    """Look until what is seen is settled; say each change on `progress` as it comes."""
    began = clock.now()
    said = None
    while True:
        seen = look()
        if seen != said:
            elapsed = clock.now() - began
            print(f"{elapsed:5.0f}s  {seen.health}: {seen.why or 'all well'}", file=progress)
            progress.flush()
            said = seen
        if settled(seen):
            return EXITS[seen.health]
        if clock.now() - began >= timeout_s:
            print(f"timed out after {timeout_s:g} s: {seen.why}", file=progress)
            return Exit.TIMEOUT
        clock.sleep(interval_s)


def redraw(draw: Callable[[], str], clock: Clock, out: TextIO, interval_s: float = 1.0) -> None:
    """Draw again and again until interrupted; in place on a terminal, one below the other else."""
    shown = ""
    while True:
        text = draw()
        if text != shown:
            if out.isatty():
                out.write("\x1b[H\x1b[2J")
            out.write(f"{text}\n")
            out.flush()
            shown = text
        clock.sleep(interval_s)
