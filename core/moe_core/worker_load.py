"""What the workers of one expert bore in a window of time: differences of their own counters.

Workers count since they began; routers hand on what the last heartbeats said. A worker that began
anew counts from where it was first heard again. The operator scales by it and `kubectl moe top`
shows it, so both mean the same by a load. It judges nothing and knows no clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol


@dataclass(frozen=True, slots=True)
class WorkerLoad:
    """What a worker counted since its process began, by its last heartbeat.

    `queued_rows` wait or are being computed now. `busy_us` is time spent computing `rows`;
    `queue_us` what `queued_attempts` waited for their turn, in sum.
    """

    incarnation: str
    queued_rows: int = 0
    busy_us: int = 0
    rows: int = 0
    queued_attempts: int = 0
    queue_us: int = 0


class Report(Protocol):
    """What a router said of the workers whose links are live, and when."""

    @property
    def at(self) -> datetime: ...
    @property
    def loads(self) -> Mapping[str, WorkerLoad]: ...


@dataclass(frozen=True, slots=True)
class Reading:
    """What a worker had counted at one moment."""

    at: datetime
    load: WorkerLoad


@dataclass(frozen=True, slots=True)
class Sample:
    """The workers of one expert at one moment, by name; `queued_rows` are theirs in sum."""

    at: datetime
    workers: Mapping[str, Reading]
    queued_rows: int


@dataclass(frozen=True, slots=True)
class Load:
    """What came in a window, and what was done of it, on average.

    `busy` is the time spent computing over the time that passed, summed over workers; `offered` is
    the same of what came: with what the line grew by, or without what it shrank by. Both are
    replicas that would compute all the time. `workers` were there on average. `backlog_s` is the
    computing time of the rows that wait at the end, `delay_ms` how long an attempt waited,
    `service_ms` how long it is computed; 0 where there was none. `rows_per_s` were computed.
    """

    busy: float
    offered: float
    workers: float
    backlog_s: float
    delay_ms: float
    service_ms: float
    rows_per_s: float = 0.0

    @property
    def utilization(self) -> float:
        """The busy share of a worker, 0 to 1."""
        return self.busy / self.workers if self.workers else 0.0


def readings(reports: Iterable[Report]) -> Mapping[str, Reading]:
    """Return what is known of each worker: the farthest of what several routers heard of it."""
    found: dict[str, Reading] = {}
    for report in reports:
        for worker, load in report.loads.items():
            heard, known = Reading(report.at, load), found.get(worker)
            if known is None or _farther(heard, known):
                found[worker] = heard
    return found


def _farther(one: Reading, other: Reading) -> bool:
    """Return whether a reading has counted more, or is of a process heard of later."""
    if one.load.incarnation == other.load.incarnation:
        return one.load.busy_us > other.load.busy_us
    return one.at > other.at


def sample(
    at: datetime, heard: Mapping[str, Reading], pods: Iterable[str], before: Sample | None
) -> Sample:
    """Return what was heard of these pods.

    A worker whose counters fell back while its process went on is left out: its router only has
    no heartbeat of a new link yet.
    """
    known = before.workers if before is not None else {}
    workers = {
        pod: heard[pod]
        for pod in pods
        if pod in heard and not (pod in known and _fell(known[pod].load, heard[pod].load))
    }
    return Sample(at, workers, sum(reading.load.queued_rows for reading in workers.values()))


def _fell(before: WorkerLoad, now: WorkerLoad) -> bool:
    return before.incarnation == now.incarnation and now.busy_us < before.busy_us


def average(samples: Sequence[Sample], window_s: float) -> Load | None:
    """Return what came in the last so many seconds; None where not all of them were seen."""
    return over(window(samples, window_s))


def over(seen: Sequence[Sample]) -> Load | None:
    """Return what came from the first sample to the last; None where they are not two."""
    if len(seen) < 2:
        return None
    spans, passed_us = list(_spans(seen)), _us(seen[-1].at - seen[0].at)
    heard_us = [_us(last.at - base.at) for base, last in spans]
    busy_us = [last.load.busy_us - base.load.busy_us for base, last in spans]
    rows = sum(last.load.rows - base.load.rows for base, last in spans)
    attempts = sum(last.load.queued_attempts - base.load.queued_attempts for base, last in spans)
    waited_us = sum(last.load.queue_us - base.load.queue_us for base, last in spans)
    row_us = sum(busy_us) / rows if rows else 0.0
    busy = sum(map(min, busy_us, heard_us)) / passed_us
    grown_us = (seen[-1].queued_rows - seen[0].queued_rows) * row_us
    return Load(
        busy=busy,
        offered=max(busy + grown_us / passed_us, 0.0),
        workers=sum(heard_us) / passed_us,
        backlog_s=seen[-1].queued_rows * row_us / 1e6,
        delay_ms=waited_us / attempts / 1e3 if attempts else 0.0,
        service_ms=sum(busy_us) / attempts / 1e3 if attempts else 0.0,
        rows_per_s=rows * 1e6 / passed_us,
    )


def window(samples: Sequence[Sample], window_s: float) -> Sequence[Sample]:
    """Return the samples of a window, from the last one before it on; none where it is not seen."""
    if not samples:
        return ()
    begins = samples[-1].at - timedelta(seconds=window_s)
    first = next((n for n in reversed(range(len(samples))) if samples[n].at <= begins), None)
    return () if first is None else samples[first:]


def _spans(seen: Sequence[Sample]) -> Iterator[tuple[Reading, Reading]]:
    """Give for each worker what it had counted first and last."""
    for name, last in seen[-1].workers.items():
        known = (one.workers[name] for one in seen[:-1] if name in one.workers)
        base = next((one for one in known if _counts_from(one.load, last.load)), None)
        if base is not None:
            yield base, last


def _counts_from(base: WorkerLoad, last: WorkerLoad) -> bool:
    """Return whether a reading is of the same process, and not of a link too new to know more."""
    return base.incarnation == last.incarnation and bool(base.busy_us or not last.busy_us)


def _us(span: timedelta) -> int:
    return span // timedelta(microseconds=1)
