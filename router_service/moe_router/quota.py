"""Decides whether a tenant may have more rows now: a token bucket, and rows under way. Pure.

A request with more rows than the bucket holds passes when the bucket is full, and what it took too
much is owed: so none is kept out for ever, and over time the rate holds.
"""

from __future__ import annotations

import math
from enum import StrEnum

from moe_core.tenants import Tenant
from moe_router.refusal import Code, Refused

RETRY_AFTER_MS = 50


class Quota(StrEnum):
    """What a tenant may have used up."""

    ROWS_PER_SECOND = "rowsPerSecond"
    ROWS_IN_FLIGHT = "rowsInFlight"


class OverQuota(Refused):
    """A tenant has used up a quota."""

    def __init__(self, quota: Quota, text: str, retry_after_ms: int) -> None:
        super().__init__(Code.RESOURCE_EXHAUSTED, text, retry_after_ms)
        self.quota = quota


class Allowance:
    """What one tenant has left here."""

    def __init__(self, tenant: Tenant, now_s: float) -> None:
        self.tenant = tenant
        self.rows_in_flight = 0
        self._tokens, self._as_of_s = float(tenant.burst), now_s

    def take(self, rows: int, now_s: float) -> None:
        """Take rows, to be given back when they are answered. Raises OverQuota."""
        self._check_in_flight(rows)
        self._take_tokens(rows, now_s)
        self.rows_in_flight += rows

    def give_back(self, rows: int) -> None:
        self.rows_in_flight -= rows

    def _check_in_flight(self, rows: int) -> None:
        tenant, most = self.tenant, self.tenant.rows_in_flight
        if not most or self.rows_in_flight + rows <= most:
            return
        quota = f"quota rowsInFlight of tenant {tenant.name} is {most}"
        if rows > most:
            text = f"sequences have {rows} rows; {quota}, and a request may have no more"
            raise Refused(Code.INVALID_ARGUMENT, text)
        text = f"{quota}, and {self.rows_in_flight} rows are under way; try again"
        raise OverQuota(Quota.ROWS_IN_FLIGHT, text, RETRY_AFTER_MS)

    def _take_tokens(self, rows: int, now_s: float) -> None:
        rate, burst = self.tenant.rows_per_second, self.tenant.burst
        if not rate:
            return
        refilled = self._tokens + max(now_s - self._as_of_s, 0.0) * rate
        self._tokens, self._as_of_s = min(refilled, burst), now_s
        missing = min(rows, burst) - self._tokens
        if missing > 0:
            text = f"quota rowsPerSecond of tenant {self.tenant.name} is {rate}, and used up"
            again_ms = max(math.ceil(1000 * missing / rate), 1)
            raise OverQuota(Quota.ROWS_PER_SECOND, f"{text}; try again in {again_ms} ms", again_ms)
        self._tokens -= rows
