"""Loads to size workers for: how many of them would be busy all the time, second by second."""

from __future__ import annotations

import math

import numpy as np

SECONDS = 3600


def steps() -> list[float]:
    """From one worker's load to five times as much and back, twice; then a half more."""
    levels = [(600, 0.8), (900, 4.0), (600, 0.8), (600, 1.2), (900, 2.4)]
    return [level for seconds, level in levels for _ in range(seconds)]


def spikes() -> list[float]:
    """Five times the load for half a minute, every ten minutes."""
    return [5.0 if second % 600 >= 570 else 1.0 for second in range(SECONDS)]


def daily() -> list[float]:
    """A day in an hour: from half a worker's load to six and back."""
    turn = 2 * math.pi / SECONDS
    return [3.25 - 2.75 * math.cos(turn * second) for second in range(SECONDS)]


def noise(seed: int = 7) -> list[float]:
    """A mean load of 2.5 that wanders by a third of itself within a minute or two."""
    rng, level, found = np.random.default_rng(seed), 0.0, []
    for kick in rng.normal(0.0, 1.0, SECONDS).tolist():
        level = 0.98 * level + 0.06 * kick
        found.append(2.5 * math.exp(level))
    return found


TRACES = {"steps": steps, "spikes": spikes, "daily curve": daily, "noise": noise}
