"""Counts how a worker behaves, on its link: what the judgement of outliers is made of.

Only sums of one period at a time; no clock, and no opinion. What is not the worker's fault is left
out: time that rows waited in line, by the worker's word, so that a worker with much to do is not
taken for a slow one, and what it refused because of how it was asked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from moe_router.latency import count_latency, no_latencies, size_of
from moe_router.message import Message, fits
from moe_router.refusal import Code
from moeops.v1.link_pb2 import Result

# Nothing is wrong with a worker that answers so.
BLAMELESS = frozenset(
    {Code.INVALID_ARGUMENT, Code.DEADLINE_EXCEEDED, Code.NOT_FOUND, Code.RESOURCE_EXHAUSTED}
)

Times = Mapping[int, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Period:
    """What a worker did in one period.

    `times` are histograms of its answers by the time they took, without the time in line, for each
    class of sizes (rows that double); `late` attempts, which ran out of time, are in the last
    bucket. `incidents` are connections that broke with attempts under way and answers that do not
    fit what was asked, each one once. `groups` counts what it was asked by artifact, `bad` what of
    that it could not compute or was not finite, `spoilt` the messages with anything of that.
    `moved` says that it has computed rows, `stalled` that it has not although it was asked to.
    """

    incarnation: str = ""
    times: Times = field(default_factory=dict)
    late: int = 0
    incidents: int = 0
    groups: Mapping[str, int] = field(default_factory=dict)
    bad: Mapping[str, int] = field(default_factory=dict)
    spoilt: int = 0
    moved: bool = False
    stalled: bool = False

    @property
    def answers(self) -> int:
        return sum(map(sum, self.times.values())) - self.late


class Conduct:
    """The counters of the period that goes on."""

    def __init__(self) -> None:
        self._computed_rows = 0
        self._begin()

    def _begin(self) -> None:
        self._times: dict[int, list[int]] = {}
        self._late = self._incidents = self._spoilt = 0
        self._groups: Counter[str] = Counter()
        self._bad: Counter[str] = Counter()

    def answered(self, message: Message, result: Result, body_bytes: int, took_s: float) -> None:
        """Count an answer that came `took_s` after it was asked for."""
        if not fits(message, result, body_bytes):
            self._incidents += 1
            return
        bad: list[str] = []
        computed = 0
        for part, group in zip(message.parts, result.groups, strict=True):
            code = group.failure.code
            if code in BLAMELESS:
                continue
            computed += 1
            self._groups[part.ask.sha256] += 1
            if code or group.nonfinite_rows:
                bad.append(part.ask.sha256)
        if bad:
            self._bad.update(bad)
            self._spoilt += 1
        if computed:
            took_s = max(took_s - result.queue_us / 1e6, 0.0)
            count_latency(self._times_of(message), took_s)

    def expired(self, message: Message) -> None:
        """Count an attempt whose time was over."""
        self._late += 1
        self._times_of(message)[-1] += 1

    def broken(self) -> None:
        """Count a connection that broke with attempts under way."""
        self._incidents += 1

    def take(self, incarnation: str, computed_rows: int, pending: int) -> Period:
        """End the period.

        The worker says that it has computed so many rows in its life; `pending` attempts were under
        way all the time.
        """
        moved, self._computed_rows = computed_rows != self._computed_rows, computed_rows
        times = {size: tuple(counts) for size, counts in self._times.items()}
        period = Period(
            incarnation,
            times,
            self._late,
            self._incidents,
            self._groups,
            self._bad,
            self._spoilt,
            moved,
        )
        stalled = pending + self._late > 0 and not moved and period.answers == 0
        self._begin()
        return replace(period, stalled=stalled)

    def _times_of(self, message: Message) -> list[int]:
        return self._times.setdefault(size_of(len(message.rows)), no_latencies())
