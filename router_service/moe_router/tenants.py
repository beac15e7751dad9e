"""Who a caller is to the engine: in whose turn its rows come, and what it may have of them.

Without tenants each stream has turns of its own, and no quota. Pure but for its clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from moe_core.metrics import Histogram
from moe_core.tenants import Tenant
from moe_router.latency import LATENCY_BOUNDS_S
from moe_router.quota import Allowance, OverQuota, Quota


@dataclass(slots=True)
class TenantTally:
    """Counters of one tenant."""

    rows: int = 0
    refused: Counter[Quota] = field(default_factory=Counter)
    queue_delay: Histogram = field(default_factory=lambda: Histogram(LATENCY_BOUNDS_S))


class Caller:
    """One stream of nobody in particular."""

    def __init__(self, flow: str = "") -> None:
        self.flow = flow

    @contextmanager
    def hold(self, rows: int) -> Iterator[None]:
        """Have rows under way in the block. Raises Refused."""
        yield

    def waited(self, seconds: float) -> None:
        """Count how long a request waited for its turn."""


class TenantCaller(Caller):
    """A tenant, however many streams it has."""

    def __init__(
        self, allowance: Allowance, tally: TenantTally, clock: Callable[[], float]
    ) -> None:
        super().__init__(allowance.tenant.name)
        self._allowance, self._tally, self._clock = allowance, tally, clock

    @contextmanager
    def hold(self, rows: int) -> Iterator[None]:
        try:
            self._allowance.take(rows, self._clock())
        except OverQuota as over:
            self._tally.refused[over.quota] += 1
            raise
        self._tally.rows += rows
        try:
            yield
        finally:
            self._allowance.give_back(rows)

    def waited(self, seconds: float) -> None:
        self._tally.queue_delay.observe(seconds)


class Tenants:
    """The tenants of a router, with what each has left and what it had."""

    def __init__(self, tenants: Sequence[Tenant], clock: Callable[[], float]) -> None:
        self.tallies: Mapping[str, TenantTally] = {one.name: TenantTally() for one in tenants}
        self.allowances: Mapping[str, Allowance] = {
            one.name: Allowance(one, clock()) for one in tenants
        }
        self.unauthenticated = 0
        self._clock = clock

    def caller(self, name: str) -> Caller:
        """Return the tenant as the engine knows it."""
        return TenantCaller(self.allowances[name], self.tallies[name], self._clock)
