"""What was read once is read again only where it has changed, and kept no longer than it is."""

from __future__ import annotations

from typing import Any

import pytest

from moe_core.document import InvalidDocument
from moe_operator.cache import Cache, Key
from moe_operator.kinds import EXPERT, KINDS, POD, Body
from moe_operator.observe import observe
from moe_operator.readings import Readings
from tests.operator.engine.bodies import expert, labelled, mixture, override


class Counting:
    """Reads the name of an object, and counts how often."""

    def __init__(self) -> None:
        self.read: list[str] = []

    def __call__(self, body: Body) -> str:
        name = str(body["metadata"]["name"])
        self.read.append(name)
        if name.endswith("bad"):
            raise InvalidDocument(f"{name} is bad")
        return name


def test_what_is_the_same_is_read_once() -> None:
    readings, read = Readings(), Counting()
    one, two = expert("one"), expert("two")
    for bodies in ((one, two), (one, two), (one, expert("two"))):
        readings.begin()
        assert [readings.of(read, body) for body in bodies] == ["tiny-one", "tiny-two"]
    assert read.read == ["tiny-one", "tiny-two", "tiny-two"]


def test_what_one_look_did_not_ask_for_is_forgotten() -> None:
    readings, read, one = Readings(), Counting(), expert("one")
    for asked in (True, False, True):
        readings.begin()
        if asked:
            readings.of(read, one)
    assert read.read == ["tiny-one", "tiny-one"]


def test_two_readers_of_one_object_do_not_mix() -> None:
    readings, read, one = Readings(), Counting(), expert("one")
    for _ in range(2):
        readings.begin()
        assert readings.of(read, one) == "tiny-one"
        assert readings.of(len, one) == len(one)


def test_what_cannot_be_read_is_told_in_every_look() -> None:
    readings, read, bad = Readings(), Counting(), expert("bad")
    for _ in range(2):
        readings.begin()
        with pytest.raises(InvalidDocument, match="tiny-bad is bad"):
            readings.of(read, bad)
    assert read.read == ["tiny-bad", "tiny-bad"]


def test_a_world_is_the_same_with_what_was_read_before() -> None:
    """Objects change, come and go between the looks, and one cannot be read."""
    cache, key, readings = Cache(), Key("default", "tiny"), Readings()

    def put(version: int, *bodies: dict[str, Any]) -> None:
        for number, body in enumerate(bodies):
            fields = {"uid": body["metadata"]["name"], "resourceVersion": str(version + number)}
            fields["creationTimestamp"] = "2026-01-01T00:00:00Z"
            meta = {**body["metadata"], **fields}
            cache.put(KINDS[body["kind"]], {**body, "metadata": meta})

    def same() -> None:
        assert observe(cache, key, (), (), None, readings) == observe(cache, key, (), ())

    serve = override("back", "tiny-e1", "Serve", version="v1", insteadOf="v2")
    put(1, mixture(), expert("e0"), expert("e1"), serve, labelled("Pod", "worker-0"))
    same()
    put(11, expert("e0", version="v2"), expert("e2", version=7))  # type: ignore[arg-type]
    same()
    put(21, expert("e2"))
    cache.remove(POD, cache.of(key, POD)[0])
    same()
    cache.remove(EXPERT, cache.of(key, EXPERT)[1])
    same()
