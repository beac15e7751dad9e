"""Counts what a worker did since it began; other threads read while it counts."""

from __future__ import annotations

import threading
from collections.abc import Callable

from moeops.v1.worker_pb2 import WorkerCounters


class Counters:
    """Cumulative counters. `clock_us` gives microseconds that only rise."""

    def __init__(self, clock_us: Callable[[], int]) -> None:
        self._clock_us = clock_us
        self._lock = threading.Lock()
        self._counted = WorkerCounters()
        self._computing_since: int | None = None

    def began(self) -> None:
        """Note that a batch is being computed from now on."""
        with self._lock:
            self._computing_since = self._clock_us()

    def computed(self, rows: int, attempts: int) -> int:
        """Count the batch that is done, with rows of so many attempts; return its time in us."""
        with self._lock:
            spent = self._spent()
            self._computing_since = None
            self._counted.busy_us += spent
            self._counted.rows += rows
            self._counted.batches += 1
            self._counted.mixed_batches += attempts > 1
            return spent

    def answered(self, failures: int) -> None:
        """Count an answered attempt, of whose groups so many failed."""
        with self._lock:
            self._counted.attempts += 1
            self._counted.failures += failures

    def busy_us(self) -> int:
        """Return the time spent computing, the batch under way included."""
        with self._lock:
            return self._counted.busy_us + self._spent()

    def snapshot(self) -> WorkerCounters:
        with self._lock:
            copy = WorkerCounters()
            copy.CopyFrom(self._counted)
            copy.busy_us += self._spent()
            return copy

    def _spent(self) -> int:
        return 0 if self._computing_since is None else self._clock_us() - self._computing_since
