"""Each wrong field is named, with what it is and what it must be."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any

import pytest

from moe_core.document import InvalidDocument, Reader


class Colour(StrEnum):
    RED = "Red"
    BLUE = "Blue"


GOOD: dict[str, Any] = {
    "name": "x",
    "count": 3,
    "on": True,
    "sha256": "0f" * 32,
    "colour": "Red",
    "inner": {"name": "y"},
    "list": [{"name": "z"}],
    "texts": ["a", "b"],
    "numbers": [1, 2],
}


def reader(**changes: Any) -> Reader:
    return Reader({**GOOD, **changes}, "spec")


def test_good_fields_are_read() -> None:
    r = reader()
    assert (r.text("name"), r.integer("count"), r.boolean("on")) == ("x", 3, True)
    assert r.sha256("sha256") == "0f" * 32
    assert r.enum("colour", Colour) is Colour.RED
    assert r.child("inner").text("name") == "y"
    assert [item.text("name") for item in r.items("list")] == ["z"]
    assert (r.texts("texts"), r.integers("numbers")) == (("a", "b"), (1, 2))


def test_missing_fields_have_defaults_where_there_are_some() -> None:
    r = Reader({}, "spec")
    assert r.text("name", default="n") == "n"
    assert r.integer("count", default=7) == 7
    assert r.boolean("on") is False
    assert r.enum("colour", Colour, default=Colour.BLUE) is Colour.BLUE
    assert r.optional_child("inner") is None
    assert (list(r.items("list")), r.texts("texts"), r.integers("numbers")) == ([], (), ())


Read = Callable[[Reader], object]


@pytest.mark.parametrize(
    ("changes", "read", "sentence"),
    [
        ({"name": 1}, lambda r: r.text("name"), "spec.name is 1; it must be text"),
        ({"name": None}, lambda r: r.text("name"), "spec.name is None; it must be text"),
        ({"count": True}, lambda r: r.integer("count"), "spec.count is True"),
        ({"count": "3"}, lambda r: r.integer("count"), "it must be 0 or more"),
        ({"count": -1}, lambda r: r.integer("count"), "spec.count is -1; it must be 0 or more"),
        (
            {"count": 101},
            lambda r: r.integer("count", high=100),
            "spec.count is 101; it must be a whole number from 0 to 100",
        ),
        ({"count": 1.0}, lambda r: r.integer("count"), "spec.count is 1.0"),
        ({"on": 1}, lambda r: r.boolean("on"), "spec.on is 1; it must be true or false"),
        ({"sha256": "0F" * 32}, lambda r: r.sha256("sha256"), "64 lower-case hexadecimal digits"),
        ({"sha256": "0f" * 31}, lambda r: r.sha256("sha256"), "spec.sha256 is '0f0f"),
        ({"colour": "red"}, lambda r: r.enum("colour", Colour), "must be one of Red, Blue"),
        ({"colour": 3}, lambda r: r.enum("colour", Colour), "must be one of Red, Blue"),
        ({"inner": []}, lambda r: r.child("inner"), "spec.inner is []; it must be an object"),
        ({"inner": {}}, lambda r: r.child("inner").text("name"), "spec.inner.name is missing"),
        ({"list": {}}, lambda r: list(r.items("list")), "spec.list is {}; it must be a list"),
        ({"list": [{}, 7]}, lambda r: list(r.items("list")), "spec.list[1] is 7"),
        ({"texts": ["a", 1]}, lambda r: r.texts("texts"), "spec.texts[1] is 1; it must be text"),
        ({"numbers": [False]}, lambda r: r.integers("numbers"), "spec.numbers[0] is False"),
        ({"name": ["x" * 500]}, lambda r: r.text("name"), "...; it must be text"),
    ],
)
def test_wrong_fields_are_named(changes: dict[str, Any], read: Read, sentence: str) -> None:
    with pytest.raises(InvalidDocument) as error:
        read(reader(**changes))
    assert sentence in str(error.value)
    assert len(str(error.value)) < 200


@pytest.mark.parametrize("value", [None, [], "text", 3])
def test_what_is_no_object_is_refused(value: object) -> None:
    with pytest.raises(InvalidDocument, match=r"spec is .*; it must be an object"):
        Reader(value, "spec")
