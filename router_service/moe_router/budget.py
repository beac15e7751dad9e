"""Bounds how much of what is served may be degraded: a token bucket without a clock.

Its unit is gate mass (one token's weights add up to about one). Served mass refills a bucket by
the allowed percentage of it, lost mass empties it, so that in the long run at most that share of
the mass is lost. A full bucket holds that percentage of a small burst. Pure arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass

SESSION_BURST = 16.0
MIXTURE_BURST = 1024.0


@dataclass(frozen=True, slots=True)
class Allowance:
    """How many percent may be lost, and of how much mass at once."""

    percent: int
    burst: float

    @property
    def full(self) -> float:
        return self.burst * self.percent / 100


@dataclass(frozen=True, slots=True)
class Bucket:
    """What is left to lose. Frozen: spending gives a new one."""

    left: float

    def spend(self, allowance: Allowance, served: float, lost: float) -> Bucket | None:
        """Account for a request of `served` mass of which `lost` is degraded; None is past it.

        A request that is refused serves nothing, so the bucket stays as it was.
        """
        earned = self.left + served * allowance.percent / 100
        if lost > 0 and allowance.percent < 100 and lost > earned * (1 + 1e-6):
            return None
        return Bucket(max(0.0, min(allowance.full, earned - lost)))
