"""Counts how a worker behaves, on its link: what the judgement of outliers is made of.

Only sums of one period at a time; no clock, and no opinion. Time that rows waited in line is taken
off, by the worker's word, so that a worker with much to do is not taken for a slow one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from moe_router.latency import count_latency, no_latencies
from moe_router.message import Message, fits
from moe_router.refusal import Code
from moeops.v1.link_pb2 import Result


@dataclass(frozen=True, slots=True)
class Period:
    """What a worker did in one period.

    `times` is a histogram of its answers by the time they took, without the time in line. `late`
    attempts ran out of time or were under way throughout. `incidents` are connections that broke
    with attempts under way and answers that do not fit what was asked, each one once. `groups`
    counts what it was asked by artifact, `bad` what of that was refused or not finite.
    """

    incarnation: str = ""
    times: tuple[int, ...] = field(default_factory=lambda: tuple(no_latencies()))
    late: int = 0
    incidents: int = 0
    groups: Mapping[str, int] = field(default_factory=dict)
    bad: Mapping[str, int] = field(default_factory=dict)

    @property
    def answers(self) -> int:
        return sum(self.times)


class Conduct:
    """The counters of the period that goes on."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._times = no_latencies()
        self._late = self._incidents = 0
        self._groups: Counter[str] = Counter()
        self._bad: Counter[str] = Counter()

    def answered(self, message: Message, result: Result, body_bytes: int, took_s: float) -> None:
        """Count an answer that came `took_s` after it was asked for."""
        if not fits(message, result, body_bytes):
            self._incidents += 1
            return
        computed = False
        for part, group in zip(message.parts, result.groups, strict=True):
            code = group.failure.code
            if code == Code.RESOURCE_EXHAUSTED:
                continue
            if code == Code.DEADLINE_EXCEEDED:
                self._late += 1
                continue
            computed = True
            self._groups[part.ask.sha256] += 1
            if code or group.nonfinite_rows:
                self._bad[part.ask.sha256] += 1
        if computed:
            count_latency(self._times, max(took_s - result.queue_us / 1e6, 0.0))

    def expired(self) -> None:
        """Count an attempt whose time was over."""
        self._late += 1

    def broken(self) -> None:
        """Count a connection that broke with attempts under way."""
        self._incidents += 1

    def take(self, incarnation: str, pending: int) -> Period:
        """End the period; `pending` attempts were under way all the time."""
        period = Period(
            incarnation,
            tuple(self._times),
            self._late + pending,
            self._incidents,
            self._groups,
            self._bad,
        )
        self._begin()
        return period
