"""What a version was counted to do in its step: the evidence that verdicts are made of.

Only data: `evidence` makes it of routers' counters, `shares` and `verdict` read it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Window:
    """What a version did since its step began, over all routers: differences of counters.

    `lasted_s` is how long the router that has counted longest did. Of gates, `mass` is how much
    weight they gave, and `lost_mass` what of it another function answered.
    """

    lasted_s: float = 0.0
    requests: int = 0
    rows: int = 0
    errors: int = 0
    nonfinite_rows: int = 0
    norm_sum: float = 0.0
    latency_counts: tuple[int, ...] = ()
    latency_bounds_us: tuple[int, ...] = ()
    shadow_requests: int = 0
    shadow_rows: int = 0
    shadow_errors: int = 0
    shadow_nonfinite_rows: int = 0
    shadow_norm_sum: float = 0.0
    session_pairs: int = 0
    overflow_pairs: int = 0
    overflow_sessions: int = 0
    mass: float = 0.0
    lost_mass: float = 0.0
