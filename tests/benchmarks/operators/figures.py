"""What is measured of one operator with so many objects, and how it is printed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from tests.benchmarks.operators.process import Calls

IDLE_S = 20.0
_HEADS = (
    *("experts", "operator", "start, s (CPU)", "restart, s", "change → table p50/p95, ms"),
    *("Override → table p50/p95, ms", "CPU of either, with what follows, ms", "peak RSS, MB"),
    *("idle CPU, %", "calls (writes) of an object at the start", "calls of a change"),
    "calls a minute when idle (+ for the Lease)",
)
_MISSING = "-"


@dataclass(slots=True)
class Figures:
    """Filled in as the measurement goes on; what is None or empty was cut off, or is not there."""

    objects: int
    operator: str
    start_s: float | None = None
    start_cpu_s: float | None = None
    restart_s: float | None = None
    change_s: list[float] = field(default_factory=list)
    rollback_s: list[float] = field(default_factory=list)
    change_cpu_s: float | None = None  # of all changes, with what follows from them
    rollback_cpu_s: float | None = None
    peak_mb: float | None = None
    idle_percent: float | None = None
    start_calls: Calls | None = None
    change_calls: Calls | None = None
    idle_calls: Calls | None = None
    ended: str = ""  # why and when, where it was early

    def row(self) -> str:
        start, n = self.start_calls, self.objects
        changes, backs = max(1, len(self.change_s)), max(1, len(self.rollback_s))
        line = _line(
            f"{n:,}",
            self.operator,
            f"{_number(self.start_s, '{:.1f}')} ({_number(self.start_cpu_s, '{:.1f}')})",
            _number(self.restart_s, "{:.1f}"),
            _quantiles(self.change_s),
            _quantiles(self.rollback_s),
            f"{_each_ms(self.change_cpu_s, changes)}/{_each_ms(self.rollback_cpu_s, backs)}",
            _number(self.peak_mb, "{:.0f}"),
            _number(self.idle_percent, "{:.1f}"),
            _of(start, lambda calls: f"{calls.all / n:.1f} ({calls.writes / n:.1f})"),
            _of(self.change_calls, lambda calls: f"{calls.all / changes:.1f}"),
            _of(self.idle_calls, _idle),
        )
        return f"{line}  {self.ended}".rstrip()


def head() -> str:
    """Return the head of the table, in Markdown as its rows."""
    return f"{_line(*_HEADS)}\n{'|---' * len(_HEADS)}|"


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _idle(calls: Calls) -> str:
    per_minute = 60 / IDLE_S
    lease = f"+{calls.lease * per_minute:.0f}" if calls.lease else ""
    return f"{calls.all * per_minute:.0f}{lease}"


def _each_ms(seconds: float | None, count: int) -> str:
    return _MISSING if seconds is None else f"{seconds / count * 1000:.0f}"


def _number(value: float | None, form: str) -> str:
    return _MISSING if value is None else form.format(value)


def _of(calls: Calls | None, say: Callable[[Calls], str]) -> str:
    return _MISSING if calls is None else say(calls)


def _quantiles(seconds: list[float]) -> str:
    if not seconds:
        return _MISSING
    p50, p95 = np.percentile(np.array(seconds) * 1000, (50, 95))
    return f"{p50:.0f}/{p95:.0f}"
