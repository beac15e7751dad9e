"""Quotas of a tenant: over time never more than the rate, and a sentence that names the quota."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_core.tenants import Tenant
from moe_router.quota import Allowance, OverQuota, Quota
from moe_router.refusal import Code, Refused


def test_a_tenant_without_quotas_has_all_it_wants() -> None:
    allowance = Allowance(Tenant("a"), 0.0)
    for _ in range(3):
        allowance.take(1 << 20, 0.0)
    assert allowance.rows_in_flight == 3 << 20


def test_the_rate_is_refused_by_name_with_when_to_come_again() -> None:
    allowance = Allowance(Tenant("team-a", rows_per_second=100), 0.0)
    allowance.take(100, 0.0)

    with pytest.raises(OverQuota, match="quota rowsPerSecond of tenant team-a is 100") as caught:
        allowance.take(25, 0.0)
    over = caught.value
    assert (over.code, over.retry_after_ms, over.quota) == (
        Code.RESOURCE_EXHAUSTED,
        250,
        Quota.ROWS_PER_SECOND,
    )
    allowance.take(25, 0.25)


def test_rows_under_way_are_refused_by_name_until_they_are_given_back() -> None:
    allowance = Allowance(Tenant("team-a", rows_in_flight=10), 0.0)
    allowance.take(10, 0.0)

    with pytest.raises(OverQuota, match="rowsInFlight of tenant team-a is 10, and 10") as caught:
        allowance.take(1, 0.0)
    assert caught.value.quota is Quota.ROWS_IN_FLIGHT
    allowance.give_back(10)
    allowance.take(1, 0.0)


def test_what_could_never_be_under_way_is_the_callers_mistake() -> None:
    with pytest.raises(Refused, match="sequences have 11 rows; quota rowsInFlight") as caught:
        Allowance(Tenant("a", rows_in_flight=10), 0.0).take(11, 0.0)
    assert caught.value.code is Code.INVALID_ARGUMENT


def test_a_request_larger_than_the_bucket_passes_when_that_is_full_and_is_owed() -> None:
    allowance = Allowance(Tenant("a", rows_per_second=10, burst_rows=20), 0.0)
    allowance.take(50, 0.0)

    with pytest.raises(OverQuota) as caught:
        allowance.take(1, 0.0)
    assert caught.value.retry_after_ms == 3_100


@given(
    st.integers(1, 100),
    st.integers(1, 300),
    st.lists(st.tuples(st.integers(1, 500), st.floats(0, 5)), min_size=1, max_size=50),
)
def test_never_more_than_the_rate_beyond_one_burst_and_one_request(
    rate: int, burst: int, asked: list[tuple[int, float]]
) -> None:
    allowance = Allowance(Tenant("a", rows_per_second=rate, burst_rows=burst), 0.0)
    now_s, let_in = 0.0, 0
    for rows, later_s in asked:
        now_s += later_s
        with suppress(OverQuota):
            allowance.take(rows, now_s)
            let_in += rows
        assert let_in <= burst + rate * now_s + max(r for r, _ in asked) + 1e-6


@given(st.integers(1, 100), st.integers(1, 300), st.integers(1, 500), st.integers(1, 500))
def test_the_hint_is_when_it_passes(rate: int, burst: int, first: int, second: int) -> None:
    allowance = Allowance(Tenant("a", rows_per_second=rate, burst_rows=burst), 0.0)
    allowance.take(first, 0.0)
    try:
        allowance.take(second, 0.0)
    except OverQuota as over:
        allowance.take(second, over.retry_after_ms / 1000 + 1e-6)
