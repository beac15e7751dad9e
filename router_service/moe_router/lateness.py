"""How much later a worker's answers come than standing in line and computing there explain.

That is the network between, or a process that gets no processor. It is counted as rows that wait
there: as many as the worker computes in that time, so that of several replicas those are asked
that will have answered first. Pure, and without a clock.

The mean halves with each answer, so that two late ones are enough, and with each second: who is
not asked for being late is tried again soon.
"""

from __future__ import annotations

from typing import Final

NOISE_S: Final = 0.016  # below that, a moment without a processor is as large
HALF_LIFE_S: Final = 1.0


class Lateness:
    """Of one connection's answers."""

    def __init__(self) -> None:
        self._mean_s, self._at_s = 0.0, 0.0

    def answered(self, took_s: float, explained_s: float, now_s: float) -> None:
        """Take note of an answer, or of one that did not come in its time."""
        late_s = max(took_s - explained_s, 0.0)
        self._mean_s, self._at_s = (self.mean_s(now_s) + late_s) / 2, now_s

    def mean_s(self, now_s: float) -> float:
        """Return by how much answers are late, in seconds."""
        return float(self._mean_s * 0.5 ** ((now_s - self._at_s) / HALF_LIFE_S))

    def rows(self, now_s: float, computed_rows: int, busy_us: int) -> int:
        """Return what counts of it for a worker that computed so many rows in so long."""
        mean_s = self.mean_s(now_s)
        if mean_s < NOISE_S or busy_us == 0:
            return 0
        return int(mean_s * computed_rows / busy_us * 1e6)
