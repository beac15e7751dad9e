"""A leader that slept writes nothing, and a plan writes only on what it was decided on."""

from __future__ import annotations

import pytest

from moe_operator.basis import Basis
from moe_operator.cache import Cache, Key
from moe_operator.cluster import Conflict
from moe_operator.fence import Fence, NotLeading
from moe_operator.kinds import EXPERT, LEASE, MIXTURE, metadata
from moe_operator.lease import DURATION_S, Lease
from tests.fakes.kube_api import KubeApi
from tests.operator.engine.bodies import expert, mixture

TINY = Key("default", "tiny")


async def test_a_leader_knows_by_its_own_clock_that_another_may_lead() -> None:
    api, now = KubeApi(), [1000.0]
    lease = Lease(api, api, "system", "moeops-operator", "first", lambda: now[0])
    assert not lease.leads()
    await lease.acquire()
    assert lease.leads()
    now[0] += DURATION_S * 0.79
    assert lease.leads()
    now[0] += DURATION_S * 0.02
    assert not lease.leads()
    await lease.acquire()
    await Lease(api, api, "system", "moeops-operator", "first", lambda: now[0]).release()
    assert lease.leads()


async def test_nothing_is_sent_by_whoever_does_not_lead() -> None:
    api, leads = KubeApi(), [True]
    fence = Fence(api, lambda: leads[0])
    made = await fence.create(MIXTURE, mixture())
    await fence.merge(MIXTURE, "default", "tiny", {"spec": {"layers": 3}})
    leads[0] = False
    for write in (
        fence.create(LEASE, made),
        fence.replace(MIXTURE, made),
        fence.apply(MIXTURE, made),
        fence.merge(MIXTURE, "default", "tiny", {}),
        fence.delete(MIXTURE, made),
    ):
        with pytest.raises(NotLeading, match="the lease was not renewed in time"):
            await write
    assert [write.verb for write in api.writes] == ["create", "merge"]


def test_what_the_cache_learns_meanwhile_is_no_part_of_what_was_decided_on() -> None:
    api, cache = KubeApi(), Cache()
    cache.put(MIXTURE, api.put(mixture()))
    seen = api.put(expert("e0"))
    cache.put(EXPERT, seen)
    basis = Basis.of(cache, TINY, lambda key, body, gone: None)
    newer = api.put(expert("e0", replicas=3))
    cache.put(EXPERT, newer)
    assert basis.seen(EXPERT, "tiny-e0") == seen
    basis.put(EXPERT, newer)
    assert basis.seen(EXPERT, "tiny-e0") == newer
    basis.remove(EXPERT, {"metadata": dict(metadata(newer))})
    assert cache.get(EXPERT, "default", "tiny-e0") is None
    with pytest.raises(Conflict, match="Expert tiny-e0 is gone"):
        basis.seen(EXPERT, "tiny-e0")
