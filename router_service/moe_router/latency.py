"""A histogram of latencies, the same for whatever is counted."""

from __future__ import annotations

from bisect import bisect_left

# In microseconds: doubling from a quarter of a millisecond to eight seconds.
LATENCY_BOUNDS_US = tuple(250 << n for n in range(16))
LATENCY_BOUNDS_S = tuple(bound / 1e6 for bound in LATENCY_BOUNDS_US)


def no_latencies() -> list[int]:
    """Return an empty histogram: a bucket for each bound, and one for the rest."""
    return [0] * (len(LATENCY_BOUNDS_US) + 1)


def count_latency(counts: list[int], latency_s: float) -> None:
    """Count one of this latency."""
    counts[bisect_left(LATENCY_BOUNDS_US, latency_s * 1e6)] += 1


def size_of(rows: int) -> int:
    """Return the class of sizes of a message; rows double from one to the next.

    A large message takes long anywhere, so that times are only compared within one.
    """
    return rows.bit_length()
