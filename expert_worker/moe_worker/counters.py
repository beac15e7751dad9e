"""Counts what a worker did since it began; other threads read while it counts.

Per message and per batch, never per row.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from moe_core.metrics import Exemplar, Histogram
from moe_worker.shelf import Slot
from moeops.v1.worker_pb2 import WorkerCounters

# In seconds: doubling from 64 microseconds to four seconds.
BOUNDS_S: Final = tuple(64e-6 * 2**n for n in range(17))


@dataclass(frozen=True, slots=True)
class Work:
    """What was computed for one layer of one artifact."""

    rows: int = 0
    batches: int = 0
    busy_us: int = 0


@dataclass(frozen=True, slots=True)
class Counted:
    """All counters at one moment: the sums, failed groups by code, work by layer, and times."""

    sums: WorkerCounters
    failures: Mapping[int, int]
    work: Mapping[Slot, Work]
    queued: Histogram
    computed: Histogram


_NONE: Final = Work()


class Counters:
    """Cumulative counters. `clock_us` gives microseconds that only rise."""

    def __init__(self, clock_us: Callable[[], int]) -> None:
        self._clock_us = clock_us
        self._lock = threading.Lock()
        self._counted = WorkerCounters()
        self._failures: Counter[int] = Counter()
        self._work: dict[Slot, Work] = {}
        self._queued, self._computed = Histogram(BOUNDS_S), Histogram(BOUNDS_S)
        self._computing_since: int | None = None

    def began(self) -> None:
        """Note that a batch is being computed from now on."""
        with self._lock:
            self._computing_since = self._clock_us()

    def computed(self, rows: int, attempts: int, slot: Slot) -> int:
        """Count the batch that is done, with rows of so many attempts; return its time in us."""
        with self._lock:
            spent = self._spent()
            self._computing_since = None
            self._counted.busy_us += spent
            self._counted.rows += rows
            self._counted.batches += 1
            self._counted.mixed_batches += attempts > 1
            before = self._work.get(slot, _NONE)
            busy_us = before.busy_us + spent
            self._work[slot] = Work(before.rows + rows, before.batches + 1, busy_us)
            return spent

    def answered(self, failures: Sequence[int], times_us: tuple[int, int] | None = None) -> None:
        """Count an answered attempt: the codes of its groups that failed, its queue and compute.

        One that was refused at once has no times.
        """
        with self._lock:
            self._counted.attempts += 1
            if failures:
                self._counted.failures += len(failures)
                self._failures.update(failures)
            if times_us is not None:
                self._counted.queued_attempts += 1
                self._counted.queue_us += times_us[0]
                self._queued.observe(times_us[0] / 1e6)
                self._computed.observe(times_us[1] / 1e6)

    def traced(self, queue_us: int, compute_us: int, ids: Mapping[str, str], at_s: float) -> None:
        """Keep an answered attempt that is traced as an example of what was counted."""
        with self._lock:
            self._queued.mark(Exemplar(queue_us / 1e6, ids, at_s))
            self._computed.mark(Exemplar(compute_us / 1e6, ids, at_s))

    def snapshot(self) -> WorkerCounters:
        """Return what is counted, the time of the batch under way included."""
        with self._lock:
            copy = WorkerCounters()
            copy.CopyFrom(self._counted)
            copy.busy_us += self._spent()
            return copy

    def counted(self) -> Counted:
        """Return everything; the batch under way counts as busy time only in the sums."""
        sums = self.snapshot()
        with self._lock:
            return Counted(
                sums,
                dict(self._failures),
                dict(self._work),
                self._queued.copy(),
                self._computed.copy(),
            )

    def _spent(self) -> int:
        return 0 if self._computing_since is None else self._clock_us() - self._computing_since
