"""Times several ways of doing the same thing in one run, in turns, so that noise hits all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

import numpy as np


@dataclass(frozen=True, slots=True)
class Timing:
    """Medians over rounds. `per_s` is how often it was done per second."""

    p50_us: float
    p99_us: float
    per_s: float


def in_turns(
    ways: Mapping[str, Callable[[], object]], *, rounds: int, seconds: float
) -> dict[str, Timing]:
    """Do each way for `seconds` in each of `rounds` rounds, after one warm-up of each."""
    for way in ways.values():
        way()
    taken: dict[str, list[Timing]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            taken[name].append(_time(way, seconds))
    return {
        name: Timing(
            median(t.p50_us for t in timings),
            median(t.p99_us for t in timings),
            median(t.per_s for t in timings),
        )
        for name, timings in taken.items()
    }


def _time(way: Callable[[], object], seconds: float) -> Timing:
    took_us: list[float] = []
    began = time.perf_counter()
    while (before := time.perf_counter()) < began + seconds or len(took_us) < 3:
        way()
        took_us.append((time.perf_counter() - before) * 1e6)
    elapsed = time.perf_counter() - began
    p50, p99 = np.percentile(took_us, (50, 99))
    return Timing(float(p50), float(p99), len(took_us) / elapsed)
