"""The Lease: one leads, another takes over in time, and whoever lost it knows."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from moe_operator.cluster import Unavailable
from moe_operator.kinds import LEASE
from moe_operator.lease import DURATION_S, Lease, LeaseLost
from tests.fakes.kube_api import KubeApi


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def candidate(api: KubeApi, identity: str, clock: Clock) -> Lease:
    return Lease(api, api, "system", "moeops-operator", identity, clock)


def record(api: KubeApi) -> dict[str, Any]:
    spec: dict[str, Any] = api.objects[LEASE, "system", "moeops-operator"]["spec"]
    return spec


async def tries(lease: Lease) -> bool:
    """Try once, as `acquire` and `hold` do."""
    return await lease._try()


async def test_the_first_leads_and_the_second_waits_for_the_end_of_the_lease() -> None:
    api, clock = KubeApi(), Clock()
    first, second = candidate(api, "first", clock), candidate(api, "second", clock)
    assert await tries(first)
    assert record(api)["holderIdentity"] == "first"
    assert not await tries(second)
    clock.now += DURATION_S - 0.1
    assert await tries(first)  # renewed: the second starts waiting anew
    assert not await tries(second)
    clock.now += DURATION_S - 0.1
    assert not await tries(second)
    clock.now += 0.2
    assert await tries(second)
    assert record(api)["holderIdentity"] == "second"
    assert record(api)["leaseTransitions"] == 1
    assert not await tries(first)


async def test_a_released_lease_is_taken_at_once() -> None:
    api, clock = KubeApi(), Clock()
    first, second = candidate(api, "first", clock), candidate(api, "second", clock)
    await first.acquire()
    await first.release()
    assert await tries(second)


async def test_the_same_identity_goes_on_after_a_restart() -> None:
    api, clock = KubeApi(), Clock()
    await candidate(api, "first", clock).acquire()
    assert await tries(candidate(api, "first", clock))


async def test_a_leader_that_finds_another_in_its_place_stops() -> None:
    api, clock = KubeApi(), Clock()
    first = Lease(api, api, "system", "moeops-operator", "first", clock, renew_s=0.0)
    await first.acquire()
    clock.now += 2 * DURATION_S
    second = candidate(api, "second", clock)
    await tries(second)
    clock.now += 2 * DURATION_S
    await second.acquire()
    with pytest.raises(LeaseLost, match="second holds the lease moeops-operator"):
        await asyncio.wait_for(first.hold(), 5)


async def test_a_leader_that_cannot_renew_stops_before_another_may_lead() -> None:
    api, clock = KubeApi(), Clock()
    first = Lease(api, api, "system", "moeops-operator", "first", clock, renew_s=0.0)
    await first.acquire()
    clock.now += DURATION_S * 0.9
    api.refuse.append(("replace", "Lease", Unavailable("down")))
    with pytest.raises(LeaseLost, match="could not be renewed in time"):
        await asyncio.wait_for(first.hold(), 5)
