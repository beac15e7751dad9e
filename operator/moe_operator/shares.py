"""What routers counted of a version, in numbers that versions are compared by.

Shares with their lower bounds, means and quantiles; pure arithmetic, which judges nothing.
"""

from __future__ import annotations

import math
from itertools import accumulate
from typing import Final

from moe_operator.window import Window

# Shares are taken at their lower bound, one in two thousand, because they are looked at every
# second.
_Z: Final = 3.29


def attempts_seen(window: Window) -> int:
    return window.requests + window.shadow_requests


def errors_seen(window: Window) -> int:
    return window.errors + window.shadow_errors


def rows_seen(window: Window) -> int:
    return window.rows + window.shadow_rows


def answered_requests(window: Window) -> int:
    """Return the attempts that gave a usable answer, copies among them."""
    return max(attempts_seen(window) - errors_seen(window), 0)


def error_percent(window: Window) -> float:
    """Return the attempts that failed of all, in percent."""
    attempts = attempts_seen(window)
    return min(100 * errors_seen(window) / attempts, 100.0) if attempts else 0.0


def lowest_percent(errors: float, attempts: float) -> float:
    """Return what the share of errors, in percent, surely is at least.

    The lower end of the score interval of a proportion (Wilson 1927, JASA 22). Neither number
    need be whole. Exactly 0 where there are none: a limit of 0 knows no rounding.
    """
    if not attempts or errors <= 0:
        return 0.0
    share, z2 = min(errors / attempts, 1.0), _Z**2
    spread = math.sqrt(share * (1 - share) / attempts + z2 / (4 * attempts**2))
    low = (share + z2 / (2 * attempts) - _Z * spread) / (1 + z2 / attempts)
    return 100 * max(low, 0.0)


def lowest_beside(percent: float, n: int, m: int) -> float:
    """Return what a share of `n` attempts surely is at least, if stable's of `m` is as it was seen.

    What stable may be off counts too: the variance of a difference of shares of n and m attempts
    is that of one share of nm / (n + m). Pairs of a session are not independent: there each
    session is one attempt, as if all of its pairs shared one fate, which no session surpasses
    (the largest design effect there is; Kish 1965).
    """
    attempts = n * m / (n + m)
    return lowest_percent(attempts * percent / 100, attempts)


def overflow_percent(window: Window) -> float:
    """Return the pairs of a version's sessions that are beyond capacity, in percent."""
    return 100 * window.overflow_pairs / window.session_pairs if window.session_pairs else 0.0


def mean_norm(window: Window) -> float:
    rows = rows_seen(window)
    return (window.norm_sum + window.shadow_norm_sum) / rows if rows else 0.0


def attempts_above(window: Window, bar_us: float) -> float:
    """Return how many attempts took longer, linear within the bucket of `bar_us`.

    How long those above the last bound took is not known: as in `quantile_us`, just that.
    """
    above, bounds = 0.0, (0, *window.latency_bounds_us, math.inf)
    for low, high, count in zip(bounds, bounds[1:], window.latency_counts, strict=False):
        if bar_us <= low:
            above += count
        elif bar_us < high < math.inf:
            above += count * (high - bar_us) / (high - low)
    return above


def quantile_us(window: Window, share: float) -> float:
    """Return a quantile of a histogram in microseconds, linear within its bucket.

    `share` is 0.5 for the median; `latency_bounds_us` are upper bounds; what is above the last one
    counts as that one. 0 of nothing.
    """
    wanted = sum(window.latency_counts) * share
    bounds = (0, *window.latency_bounds_us)
    upto = [0, *accumulate(window.latency_counts)]
    for low, high, before, after in zip(bounds, bounds[1:], upto, upto[1:], strict=False):
        if after >= wanted and after > before:
            return low + (high - low) * (wanted - before) / (after - before)
    return float(bounds[-1]) if window.latency_counts else 0.0
