"""Decides how long rows wait for an expert that nobody holds and that its table says to wait for.

Such an expert sleeps, as a rule, and rows are what wakes it. Pure: `now` is an input.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

# A quarter of the time of a request, within these bounds, is kept for the answer: by the expert, or
# by the ladder.
LEAST_RESERVE_S: Final = 0.05
RESERVE_S: Final = 0.5
# What is not there in twice the time that it took before, half a minute at least, is not waited for
# any longer; in five minutes where nobody knows how long it takes.
LEAST_S: Final = 30.0
UNKNOWN_S: Final = 300.0

Version = tuple[str, str]  # expert id, sha256


@dataclass(frozen=True, slots=True)
class Waking:
    """Since when rows lack a version, and how long it took to come the last time, if that is known.

    Times are those of a router's clock.
    """

    since_s: float
    took_s: float | None = None


@dataclass(frozen=True, slots=True)
class Patience:
    """What a request knows of waiting: its own times, and what its router has seen of versions."""

    now_s: float
    began_s: float
    deadline_s: float
    wakings: Mapping[Version, Waking] = field(default_factory=dict)

    def until(self, version: Version) -> float | None:
        """Return until when rows wait for a version; None where the time left would not do."""
        known = self.wakings.get(version) or Waking(self.now_s)
        quarter_s = (self.deadline_s - self.began_s) / 4
        latest_s = self.deadline_s - min(RESERVE_S, max(LEAST_RESERVE_S, quarter_s))
        took_s = known.took_s
        overdue_s = known.since_s + (UNKNOWN_S if took_s is None else max(2 * took_s, LEAST_S))
        end_s = min(latest_s, overdue_s)
        too_late = took_s is not None and known.since_s + took_s > latest_s
        return None if self.now_s >= end_s or too_late else end_s
