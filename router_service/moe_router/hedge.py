"""When a second worker is asked although the first one may still answer, and how often.

Pure, and without a clock: times are inputs, and the budget is in messages.
"""

from __future__ import annotations

from itertools import accumulate

from moe_router.latency import LATENCY_BOUNDS_US, count_latency, no_latencies, size_of

QUANTILE = 0.98
MIN_ANSWERS = 64  # of a size, before its quantile says anything
NEWEST = 512  # answers of a size; as many older ones are remembered at most
LOOK_EVERY = 16
SHORTEST_S = 0.025  # one tick of the links, which see to it

EARNED = 0.05  # of a hedge, by each message that is sent
MOST_HEDGES = 10.0


class Pace:
    """How long a worker's newest answers took, by the class of sizes of the message."""

    def __init__(self) -> None:
        self._newest: dict[int, list[int]] = {}
        self._older: dict[int, list[int]] = {}
        self._patience_s: dict[int, float] = {}

    def took(self, rows: int, took_s: float) -> None:
        """Take note of an answer."""
        size = size_of(rows)
        counts = self._newest.setdefault(size, no_latencies())
        count_latency(counts, took_s)
        seen = sum(counts)
        if seen % LOOK_EVERY == 0:
            self._look(size)
        if seen == NEWEST:
            self._older[size] = self._newest.pop(size)

    def patience_s(self, rows: int) -> float | None:
        """Return how long to wait for an answer to so many rows; None where too few were seen.

        The upper bound of the histogram's bucket that has the quantile.
        """
        return self._patience_s.get(size_of(rows))

    def _look(self, size: int) -> None:
        newest, older = self._newest[size], self._older.get(size, no_latencies())
        counts = [a + b for a, b in zip(newest, older, strict=True)]
        wanted = QUANTILE * sum(counts)
        if sum(counts) < MIN_ANSWERS:
            return
        bucket = next(at for at, seen in enumerate(accumulate(counts)) if seen >= wanted)
        bounds_us = (*LATENCY_BOUNDS_US, float("inf"))
        self._patience_s[size] = max(bounds_us[bucket] / 1e6, SHORTEST_S)


class HedgeBudget:
    """A token bucket: hedges are a share of the messages, and a few at once at most.

    Where everything is slow at once, a second attempt for everything would make it slower.
    """

    def __init__(self) -> None:
        self._left = MOST_HEDGES

    def earn(self) -> None:
        self._left = min(self._left + EARNED, MOST_HEDGES)

    @property
    def allows(self) -> bool:
        return self._left >= 1

    def spend(self) -> None:
        self._left -= 1
