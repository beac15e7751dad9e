"""What a load met, in numbers: pure arithmetic over records of single requests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

BIN_S = 0.1


@dataclass(frozen=True, slots=True)
class Record:
    """One request. Times are in seconds of one clock; `failure` is None where it was answered.

    `rungs` are (rung, expert, rows); `different` says that the answer has other bits than were
    expected, None where nothing was.
    """

    began_s: float
    ended_s: float
    rows: int
    failure: str | None = None
    epoch: int = 0
    degraded_ppm: int = 0
    rungs: tuple[tuple[str, str, int], ...] = ()
    different: bool | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """Requests that began within a window. Latencies are those of answered requests.

    `longest_stall_s` is the longest time without an answer while requests were waiting; `bins`
    counts answers in pieces of 0.1 s from the window's begin; `epochs` counts answers by table;
    `rungs` counts rows by (rung, expert). `passed_over` are the sessions that were on another
    version of a gate than choices are known of.
    """

    seconds: float
    requests: int
    rows: int
    failed: int
    failures: Mapping[str, int]
    longest_stall_s: float
    p50_ms: float
    p99_ms: float
    slowest_ms: float
    degraded_requests: int
    different: int
    epochs: Mapping[int, int]
    rungs: Mapping[tuple[str, str], int]
    bins: tuple[int, ...]
    passed_over: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return this as JSON has it; rungs are named `RUNG/EXPERT`."""
        return asdict(self) | {"rungs": {"/".join(k): rows for k, rows in self.rungs.items()}}

    def lines(self) -> list[str]:
        """Return this for people, a line a figure."""
        rate = self.requests / self.seconds if self.seconds else 0.0
        lines = [
            f"requests        {self.requests} in {self.seconds:.1f} s ({rate:.0f}/s)",
            f"rows            {self.rows}",
            f"failed          {self.failed}",
            *(f"                {count} × {why}" for why, count in self.failures.items()),
            f"longest stall   {self.longest_stall_s * 1000:.0f} ms",
            f"latency         p50 {self.p50_ms:.1f} ms, p99 {self.p99_ms:.1f} ms, "
            f"slowest {self.slowest_ms:.1f} ms",
            f"degraded        {self.degraded_requests} requests",
            f"other bits      {self.different} answers",
            "epochs          " + ", ".join(f"{e}: {n}" for e, n in self.epochs.items()),
        ]
        if self.passed_over:
            lines.append(f"passed over     {self.passed_over} sessions on another gate")
        for (rung, expert), rows in self.rungs.items():
            lines.append(f"by {rung:<12} {rows} rows of {expert}")
        return lines


def report(
    records: Sequence[Record],
    waiting: Sequence[float],
    since_s: float,
    until_s: float,
    passed_over: Sequence[float] = (),
) -> Report:
    """Sum up the requests that began in [since_s, until_s).

    `waiting` are the begins of requests that have not ended: they count for the stall only;
    `passed_over` is when sessions were.
    """
    inside = [r for r in records if since_s <= r.began_s < until_s]
    good = [r for r in inside if r.failure is None]
    took_ms = [(r.ended_s - r.began_s) * 1000 for r in good]
    rungs: Counter[tuple[str, str]] = Counter()
    for record in good:
        for rung, expert, rows in record.rungs:
            rungs[rung, expert] += rows
    return Report(
        seconds=until_s - since_s,
        requests=len(inside),
        rows=sum(r.rows for r in inside),
        failed=len(inside) - len(good),
        failures=dict(Counter(r.failure for r in inside if r.failure is not None)),
        longest_stall_s=longest_stall(inside, [w for w in waiting if w >= since_s], until_s),
        p50_ms=percentile(took_ms, 50),
        p99_ms=percentile(took_ms, 99),
        slowest_ms=max(took_ms, default=0.0),
        degraded_requests=sum(r.degraded_ppm > 0 for r in good),
        different=sum(r.different is True for r in good),
        epochs=dict(sorted(Counter(r.epoch for r in good).items())),
        rungs=dict(sorted(rungs.items())),
        bins=_bins([r.ended_s for r in good], since_s, until_s),
        passed_over=sum(since_s <= at < until_s for at in passed_over),
    )


def longest_stall(records: Sequence[Record], waiting: Sequence[float], until_s: float) -> float:
    """Return the longest time in which requests waited and none was answered.

    A gap between two answers counts from the first of them, or from the begin of the oldest
    request that was then waiting, whichever is later; failed requests waited too.
    """
    answers = sorted(r.ended_s for r in records if r.failure is None)
    spans = [(r.began_s, r.ended_s) for r in records]
    spans += [(began, until_s) for began in waiting]
    if not spans:
        return 0.0
    marks = [min(began for began, _ in spans), *answers]
    ends = [*answers, max(ended for _, ended in spans)]
    begins = np.array([began for began, _ in spans])
    until = np.array([ended for _, ended in spans])
    longest = 0.0
    for start, end in zip(marks, ends, strict=True):
        if end - start <= longest:
            continue
        outstanding = begins[(until > start) & (begins < end)]
        if len(outstanding):
            longest = max(longest, end - max(start, float(outstanding.min())))
    return longest


def percentile(values: Sequence[float], percent: float) -> float:
    """Return a percentile; 0 of nothing."""
    return float(np.percentile(values, percent)) if values else 0.0


def _bins(ended: Sequence[float], since_s: float, until_s: float) -> tuple[int, ...]:
    count = max(int(np.ceil((until_s - since_s) / BIN_S)), 1)
    edges = since_s + BIN_S * np.arange(count + 1)
    return tuple(int(n) for n in np.histogram(ended, edges)[0])
