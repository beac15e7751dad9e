"""Tenants as a Mixture lists them, and as they reach a router."""

from __future__ import annotations

from typing import Any

import pytest

from moe_core.document import InvalidDocument, Reader
from moe_core.tenants import Tenant, from_json, read_tenants, to_json

ALL = [
    {"name": "team-a", "weight": 3, "rowsPerSecond": 100, "burstRows": 500, "rowsInFlight": 64},
    {"name": "b"},
]


def test_what_is_read_is_what_reaches_the_router() -> None:
    tenants = read_tenants(Reader({"tenants": ALL}, "spec"))
    assert tenants == (Tenant("team-a", 3, 100, 500, 64), Tenant("b"))
    assert from_json(to_json(tenants)) == tenants


def test_a_bucket_holds_a_second_where_nothing_is_said() -> None:
    assert Tenant("a", rows_per_second=7).burst == 7


@pytest.mark.parametrize(
    ("listed", "text"),
    [
        pytest.param([{}], "tenants[0].name is missing", id="no name"),
        pytest.param([{"name": "A/b"}], "tenants[0].name is 'A/b'; it must be", id="a path"),
        pytest.param([{"name": ".."}], "tenants[0].name is '..'; it must be", id="above"),
        pytest.param([{"name": "a", "weight": 0}], "tenants[0].weight is 0", id="no weight"),
        pytest.param([{"name": "a", "rowsPerSecond": 0}], "rowsPerSecond is 0", id="no rows"),
        pytest.param([{"name": "a", "burstRows": 2}], "without rowsPerSecond", id="burst alone"),
        pytest.param([{"name": "a"}] * 2, "tenants[1].name is 'a' as of another", id="twice"),
        pytest.param([{"name": f"t{n}"} for n in range(65)], "at most 64", id="too many"),
        pytest.param({"a": 1}, "tenants is {'a': 1}; it must be a list", id="no list"),
    ],
)
def test_what_is_wrong_is_named(listed: Any, text: str) -> None:
    with pytest.raises(InvalidDocument) as caught:
        read_tenants(Reader({"tenants": listed}, "spec"))
    assert text in str(caught.value)


def test_what_is_no_json_is_said_without_a_trace() -> None:
    with pytest.raises(InvalidDocument, match="it must be a list in JSON"):
        from_json("team-a")
