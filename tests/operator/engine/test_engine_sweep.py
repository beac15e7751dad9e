"""The sweep: what watches lost is found, and nothing else is read."""

from __future__ import annotations

from dataclasses import replace

import pytest

from moe_operator.cache import Cache, Key
from moe_operator.cluster import Refused
from moe_operator.kinds import EXPERT, MIXTURE, NODE, POD, WATCHED
from moe_operator.sweep import Sweep
from tests.fakes.kube_api import KubeApi
from tests.operator.engine.bodies import expert, mixture

TINY = Key("default", "tiny")


class Swept:
    def __init__(self, namespaces: tuple[str | None, ...] = (None,)) -> None:
        self.api = KubeApi()
        self.cache = Cache()
        self.told: list[Key] = []
        self.sweep = Sweep(self.api, self.cache, namespaces, self.told.extend)


async def test_the_first_pass_reads_everything() -> None:
    swept = Swept()
    swept.api.put(mixture())
    swept.api.put(expert("e0"))
    await swept.sweep.fill()
    assert [body["spec"]["expertId"] for body in swept.cache.of(TINY, EXPERT)] == ["e0"]
    assert set(swept.told) == {TINY}


async def test_nothing_missed_tells_nothing() -> None:
    swept = Swept()
    swept.api.put(mixture())
    await swept.sweep.fill()
    swept.told.clear()
    assert await swept.sweep.check() == 0
    assert swept.told == []


async def test_a_deletion_a_change_and_a_creation_that_no_watch_told_are_found() -> None:
    swept = Swept()
    for body in (mixture(), expert("e0"), expert("e1")):
        swept.api.put(body)
    await swept.sweep.fill()
    swept.told.clear()
    swept.api.remove(EXPERT, "default", "tiny-e0")
    swept.api.put(expert("e1", version="v2"))
    swept.api.put(expert("e2"))
    assert await swept.sweep.check() == 3
    found = {b["spec"]["expertId"]: b["spec"]["version"] for b in swept.cache.of(TINY, EXPERT)}
    assert found == {"e1": "v2", "e2": "v1"}
    assert set(swept.told) == {TINY}
    assert await swept.sweep.check() == 0


async def test_an_object_made_again_with_the_same_name_is_read_again() -> None:
    swept = Swept()
    swept.api.put(mixture())
    await swept.sweep.fill()
    swept.api.remove(MIXTURE, "default", "tiny")
    swept.api.put(mixture(layers=7))
    await swept.sweep.check()
    found = swept.cache.get(MIXTURE, "default", "tiny")
    assert found is not None
    assert found["spec"]["layers"] == 7
    assert await swept.sweep.check() == 0


async def test_an_object_seen_after_the_list_was_made_is_kept() -> None:
    swept = Swept()
    await swept.sweep.fill()
    created = swept.api.put(mixture())
    listed = await swept.api.list_all(MIXTURE, None, brief=True)
    swept.api.version = int(listed[1]) - 1  # the API server answers from before it was made
    swept.api.objects.clear()
    swept.cache.put(MIXTURE, created)
    assert await swept.sweep.check() == 0
    assert swept.cache.get(MIXTURE, "default", "tiny") is not None


async def test_other_namespaces_are_left_alone() -> None:
    swept = Swept(("here",))
    other = mixture()
    swept.cache.put(MIXTURE, swept.api.put(other))
    swept.api.objects.clear()
    assert await swept.sweep.check() == 0
    assert swept.cache.get(MIXTURE, "default", "tiny") is not None


NODE_1 = {"kind": "Node", "metadata": {"name": "n1", "namespace": ""}, "spec": {}}


async def test_nodes_are_read_whatever_the_namespaces() -> None:
    swept = Swept(("here",))
    swept.api.put(NODE_1)
    assert await swept.sweep.fill() == WATCHED
    assert [body["metadata"]["name"] for body in swept.cache.of_cluster(NODE)] == ["n1"]
    swept.api.remove(NODE, "", "n1")
    assert await swept.sweep.check() == 1
    assert swept.cache.of_cluster(NODE) == []


async def test_nodes_that_may_not_be_read_are_done_without() -> None:
    swept = Swept()
    swept.api.refuse.append(("list", "Node", Refused("nodes is forbidden")))
    kinds = await swept.sweep.fill()
    assert set(WATCHED) - set(kinds) == {NODE}
    swept.api.put(NODE_1)
    assert await replace(swept.sweep, kinds=kinds).check() == 0


async def test_pods_that_may_not_be_read_are_not() -> None:
    swept = Swept()
    swept.api.refuse.append(("list", POD.name, Refused("pods is forbidden")))
    with pytest.raises(Refused, match="forbidden"):
        await swept.sweep.fill()
