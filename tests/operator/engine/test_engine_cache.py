"""The cache: newest wins, the dead stay dead, and everything finds its mixture."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from moe_operator.cache import Cache, Key, resource_version, uid
from moe_operator.kinds import EXPERT, MIXTURE, NODE, OVERRIDE, POD, Body
from tests.operator.engine.bodies import expert, labelled, mixture, override

TINY = Key("default", "tiny")


def at(body: dict[str, Any], version: int, uid_: str = "u1") -> dict[str, Any]:
    """Return the object as the API server had it at a resourceVersion."""
    return {**body, "metadata": {**body["metadata"], "resourceVersion": str(version), "uid": uid_}}


def test_an_older_object_does_not_replace_a_newer_one() -> None:
    cache = Cache()
    assert cache.put(MIXTURE, at(mixture(layers=4), 7)) == {TINY}
    assert cache.put(MIXTURE, at(mixture(layers=2), 6)) == frozenset()
    assert cache.put(MIXTURE, at(mixture(layers=2), 7)) == frozenset()
    found = cache.get(MIXTURE, "default", "tiny")
    assert found is not None
    assert found["spec"]["layers"] == 4


def test_a_late_event_does_not_bring_back_what_was_deleted() -> None:
    cache = Cache()
    cache.put(MIXTURE, at(mixture(), 5))
    assert cache.remove(MIXTURE, at(mixture(), 9)) == {TINY}
    assert cache.put(MIXTURE, at(mixture(), 6)) == frozenset()
    assert cache.get(MIXTURE, "default", "tiny") is None
    assert TINY not in cache


def test_an_object_made_again_with_the_same_name_is_another() -> None:
    cache = Cache()
    cache.put(MIXTURE, at(mixture(), 5, "u1"))
    cache.put(MIXTURE, at(mixture(), 8, "u2"))
    assert cache.remove(MIXTURE, at(mixture(), 7, "u1")) == frozenset()
    assert cache.put(MIXTURE, at(mixture(layers=9), 9, "u1")) == frozenset()
    found = cache.get(MIXTURE, "default", "tiny")
    assert found is not None
    assert uid(found) == "u2"


def test_objects_are_told_by_kind_and_sorted_by_name() -> None:
    cache = Cache()
    for number, name in enumerate(("c", "a", "b"), start=1):
        cache.put(EXPERT, at(expert(name), number, name))
    cache.put(POD, at(labelled("Pod", "worker-0"), 4, "p"))
    names = [body["metadata"]["name"] for body in cache.of(TINY, EXPERT)]
    assert names == ["tiny-a", "tiny-b", "tiny-c"]
    assert len(cache.of(TINY, POD)) == 1
    assert cache.keys() == [TINY]


def test_an_override_belongs_to_the_mixture_of_its_expert_whichever_comes_first() -> None:
    """Without an Expert it is told so under the name of its target."""
    serve = at(override("back", "tiny-e0", "Pause", insteadOf="v2"), 3, "o")
    cache, nobody = Cache(), Key("default", "tiny-e0")
    assert cache.put(OVERRIDE, serve) == {nobody}
    assert cache.put(EXPERT, at(expert("e0"), 4, "e")) == {TINY, nobody}
    assert len(cache.of(TINY, OVERRIDE)) == 1
    assert cache.remove(EXPERT, at(expert("e0"), 5, "e")) == {TINY, nobody}
    assert cache.of(TINY, OVERRIDE) == []
    cache.put(EXPERT, at(expert("e0"), 6, "e2"))
    assert cache.remove(OVERRIDE, serve) == {TINY}
    assert cache.of(TINY, OVERRIDE) == []


def test_an_override_of_a_mixture_belongs_to_it_and_to_no_expert_of_that_name() -> None:
    body = override("back", "tiny", "Serve", epoch=3, replaces=[])
    body["spec"]["targetRef"]["kind"] = "Mixture"
    cache = Cache()
    assert cache.put(OVERRIDE, at(body, 3, "o")) == {TINY}
    assert cache.put(EXPERT, at(expert("e0"), 4, "e")) == {TINY}
    assert len(cache.of(TINY, OVERRIDE)) == 1
    assert cache.remove(OVERRIDE, at(body, 5, "o")) == {TINY}


def test_an_object_that_moves_to_another_mixture_concerns_both() -> None:
    cache = Cache()
    cache.put(POD, at(labelled("Pod", "p", "tiny"), 1))
    assert cache.put(POD, at(labelled("Pod", "p", "other"), 2)) == {TINY, Key("default", "other")}
    assert cache.of(TINY, POD) == []


events = st.lists(
    st.tuples(st.sampled_from(["u1", "u2"]), st.booleans()), min_size=1, max_size=8
).flatmap(lambda history: st.tuples(st.just(history), st.permutations(range(len(history)))))


@given(events)
def test_the_order_of_events_of_one_life_does_not_matter(
    drawn: tuple[list[tuple[str, bool]], list[int]],
) -> None:
    """Two lives of a name, each created, changed and perhaps deleted, told in any order."""
    history, order = drawn
    lives = sorted(history, key=lambda event: event[0])
    # The first life ends before the second begins.
    ends = {i for i in range(len(lives) - 1) if (lives[i][0], lives[i + 1][0]) == ("u1", "u2")}
    told = [(i + 1, life, deleted or i in ends) for i, (life, deleted) in enumerate(lives)]
    cache = Cache()
    for index in order:
        version, life, deleted = told[index]
        body: Body = at(mixture(), version, life)
        (cache.remove if deleted else cache.put)(MIXTURE, body)
    dead = {life for _, life, deleted in told if deleted}
    alive = [(version, life) for version, life, _ in told if life not in dead]
    found = cache.get(MIXTURE, "default", "tiny")
    assert (found is None) == (not alive)
    if found is not None:
        assert (resource_version(found), uid(found)) == max(alive)


def test_what_a_node_says_concerns_every_mixture_and_its_heartbeat_nobody() -> None:
    cache = Cache()
    cache.put(MIXTURE, at(mixture(), 1))
    cache.put(MIXTURE, at(mixture("other"), 2, "u2"))
    both = {TINY, Key("default", "other")}

    def node(version: int, ready: str, beat: str) -> Body:
        condition = {"type": "Ready", "status": ready, "lastHeartbeatTime": beat}
        meta = {"name": "n1", "uid": "n", "resourceVersion": str(version)}
        return {"metadata": meta, "spec": {}, "status": {"conditions": [condition]}}

    assert cache.put(NODE, node(3, "True", "12:00")) == both
    assert cache.put(NODE, node(4, "True", "12:05")) == frozenset()
    assert cache.put(NODE, node(5, "Unknown", "12:05")) == both
    assert cache.keys() == sorted(both)
    assert cache.remove(NODE, node(6, "Unknown", "12:05")) == both
    assert cache.of_cluster(NODE) == []
