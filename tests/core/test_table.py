"""The table survives being written and read, and pins hold what sessions were promised."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_core.document import InvalidDocument
from moe_core.pins import bucket, pinned, weight_at
from moe_core.rollout import Outcome, Rollout, Version, WeightSince
from moe_core.rows import ExpertRow, GateRow, GateVariant, OnCold, Role
from moe_core.table import LADDER, Failover, Rung, Table
from tests.support.policies import policies

OLD, NEW, THIRD = (Version(f"v{n}", f"{n:x}" * 64, f"file:///v{n}") for n in (1, 2, 3))


def rollout(
    *weights: tuple[int, int], outcome: Outcome = Outcome.PROGRESSING, shadow_percent: int = 0
) -> Rollout:
    pairs = tuple(WeightSince(*pair) for pair in weights)
    return Rollout(2, NEW, 1, "2026-01-01T00:00:00Z", outcome, "", "salt", pairs, shadow_percent)


def row(**changes: Any) -> ExpertRow:
    base = ExpertRow("ex-e0", "e0", Role.ROUTED, (0, 1), stable=OLD)
    return replace(base, **changes)


versions = st.sampled_from([OLD, NEW, THIRD])
rollouts = st.builds(
    rollout,
    st.tuples(st.integers(0, 99), st.integers(0, 100)),
    outcome=st.sampled_from(Outcome),
    shadow_percent=st.integers(0, 100),
)
rows = st.builds(
    ExpertRow,
    name=st.sampled_from(["a", "b"]),
    expert_id=st.text("abc", min_size=1, max_size=3),
    role=st.sampled_from(Role),
    layers=st.lists(st.integers(0, 9), max_size=3).map(tuple),
    backup=st.sampled_from([None, "b"]),
    stable=st.none() | versions,
    candidate=st.none() | versions,
    previous=st.none() | versions,
    revoked=st.lists(st.sampled_from([NEW.sha256, THIRD.sha256]), max_size=2).map(tuple),
    rollout=st.none() | rollouts,
    on_cold=st.sampled_from(OnCold),
)
variants = st.builds(
    GateVariant,
    version=st.just("g1"),
    sha256=st.just("cd" * 32),
    uri=st.just("file:///g"),
    experts=st.just(("e0", "e1")),
    policy=policies(("e0", "e1")),
    accepts=st.sampled_from([{}, {"e1": ("v1", "v2")}]),
)
gate_rows = st.builds(
    GateRow,
    name=st.just("gate"),
    layers=st.just((0, 1)),
    stable=variants,
    candidate=st.none() | variants,
    previous=st.none() | variants,
    revoked=st.sampled_from([(), ("ef" * 32,)]),
    rollout=st.none() | rollouts,
)
tables = st.builds(
    Table,
    mixture=st.just("mix"),
    uid=st.just("uid-1"),
    epoch=st.integers(0, 2**40),
    hidden_size=st.integers(1, 4096),
    layers=st.integers(1, 99),
    dtype=st.just("BFloat16"),
    trunk_sha256=st.sampled_from(["", "ab" * 32]),
    failover=st.builds(
        Failover, st.lists(st.sampled_from(Rung), unique=True).map(tuple), st.integers(0, 100)
    ),
    gates=st.lists(gate_rows, max_size=2).map(tuple),
    experts=st.lists(rows, max_size=4).map(tuple),
)


@given(tables)
def test_a_table_survives_being_written_and_read(table: Table) -> None:
    body = {"metadata": {"uid": table.uid}, "spec": table.to_spec()}
    assert Table.from_object(body) == table


def spec(**changes: Any) -> dict[str, Any]:
    table = Table("m", "", 3, 8, 2, "Float32", "", Failover(), (), (row(),))
    return {**table.to_spec(), **changes}


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        pytest.param({}, "spec is None; it must be an object", id="no spec"),
        pytest.param({"spec": spec(epoch=-1)}, "spec.epoch is -1", id="epoch"),
        pytest.param({"spec": spec(hiddenSize=0)}, "spec.hiddenSize is 0", id="hidden size"),
        pytest.param(
            {"spec": spec(failover={"ladder": ["Pray"], "maxDegradedPercent": 5})},
            "spec.failover.ladder: 'Pray' is not a valid Rung; rungs are Replica",
            id="rung",
        ),
        pytest.param(
            {"spec": spec(failover={"ladder": [], "maxDegradedPercent": 101})},
            "spec.failover.maxDegradedPercent is 101",
            id="budget",
        ),
        pytest.param(
            {"spec": spec(experts=[{**row().to_dict(), "role": "Chief"}])},
            "spec.experts[0].role is 'Chief'; it must be one of Routed",
            id="role",
        ),
        pytest.param(
            {"spec": spec(experts=[row(stable=replace(OLD, sha256="x")).to_dict()])},
            "spec.experts[0].stable.sha256 is 'x'",
            id="digest",
        ),
        pytest.param(
            {"spec": spec(experts=[row(rollout=rollout((1, 200))).to_dict()])},
            "spec.experts[0].rollout.weights[0].percent is 200",
            id="weight",
        ),
        pytest.param(
            {"spec": spec(experts=[row(rollout=rollout(shadow_percent=101)).to_dict()])},
            "spec.experts[0].rollout.shadowPercent is 101; it must be a whole number from 0 to 100",
            id="shadow",
        ),
    ],
)
def test_a_malformed_table_names_the_field(body: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidDocument) as error:
        Table.from_object(body)
    assert sentence in str(error.value)


def test_experts_are_found_put_in_and_kept_in_order() -> None:
    table = Table("m", "", 3, 8, 2, "Float32", "", Failover())
    table = table.with_expert(row(expert_id="b")).with_expert(row(expert_id="a"))
    assert [e.expert_id for e in table.experts] == ["a", "b"]
    changed = table.with_expert(row(expert_id="b", stable=NEW))
    assert changed.expert("b") == row(expert_id="b", stable=NEW)
    assert table.expert("b") == row(expert_id="b")
    assert table.expert("c") is None


def test_what_an_expert_names_and_how_a_rollout_stands() -> None:
    assert row(candidate=NEW, previous=THIRD).named == (OLD, NEW, THIRD)
    assert ExpertRow("n", "e", Role.DENSE, ()).named == ()
    assert rollout((3, 5), (9, 50)).weight == 50
    assert rollout().weight == 0
    ended = {outcome for outcome in Outcome if outcome.ended}
    assert ended == {Outcome.PROMOTED, Outcome.ROLLED_BACK, Outcome.ABORTED}
    assert LADDER[0] is Rung.REPLICA
    assert LADDER[-1] is Rung.RESIDUAL


WEIGHTS = (WeightSince(5, 10), WeightSince(8, 50), WeightSince(12, 0))


@pytest.mark.parametrize(
    ("epoch", "percent"), [(0, 0), (4, 0), (5, 10), (7, 10), (8, 50), (11, 50), (12, 0), (99, 0)]
)
def test_the_weight_is_that_of_the_epoch(epoch: int, percent: int) -> None:
    assert weight_at(WEIGHTS, epoch) == percent


def test_buckets_are_even_and_rollouts_independent() -> None:
    seen = Counter(bucket("salt", f"session-{n}") // 1000 for n in range(20_000))
    assert set(seen) == set(range(10))
    assert all(1800 < count < 2200 for count in seen.values())
    both = sum(
        bucket("one", f"s{n}") < 5000 and bucket("two", f"s{n}") < 5000 for n in range(10_000)
    )
    assert 2300 < both < 2700


sessions = st.text(max_size=20)
epochs = st.integers(0, 40)


@given(sessions, epochs, st.integers(0, 100), st.integers(0, 100))
def test_a_live_session_is_moved_by_no_later_weight(
    session: str, began: int, first: int, later: int
) -> None:
    before = row(candidate=NEW, rollout=rollout((10, first)))
    after = row(candidate=NEW, rollout=rollout((10, first), (began + 11, later)))
    assert pinned(before, session, began) == pinned(after, session, began)


@given(sessions, epochs, st.integers(0, 100))
def test_a_promotion_moves_no_live_session(session: str, began: int, percent: int) -> None:
    on_trial = row(candidate=NEW, rollout=rollout((10, percent)))
    promoted = row(
        stable=NEW,
        previous=OLD,
        rollout=rollout((10, percent), (began + 11, 100), outcome=Outcome.PROMOTED),
    )
    assert pinned(on_trial, session, began) == pinned(promoted, session, began)
    assert pinned(promoted, session, began + 11) == NEW


@given(sessions, epochs)
def test_rising_weights_only_ever_add_sessions(session: str, began: int) -> None:
    seen = [
        pinned(row(candidate=NEW, rollout=rollout((0, percent))), session, began)
        for percent in range(0, 101, 10)
    ]
    assert seen[0] == OLD
    assert seen[-1] == NEW
    assert seen == sorted(seen, key=lambda version: version == NEW)


@given(sessions, epochs, st.integers(0, 100))
def test_a_revoked_version_gets_no_session(session: str, began: int, percent: int) -> None:
    taken_back = row(revoked=(NEW.sha256,), rollout=rollout((0, percent)))
    assert pinned(taken_back, session, began) == OLD
    revoked_on_trial = row(candidate=NEW, revoked=(NEW.sha256,), rollout=rollout((0, percent)))
    assert pinned(revoked_on_trial, session, began) == OLD


@pytest.mark.parametrize(
    ("expert", "expected"),
    [
        pytest.param(row(stable=None), None, id="nothing is routable yet"),
        pytest.param(row(), OLD, id="no rollout"),
        pytest.param(row(rollout=rollout((0, 100))), OLD, id="ended, its loser gone"),
        pytest.param(row(candidate=NEW, rollout=rollout()), OLD, id="dark step"),
        pytest.param(row(candidate=NEW, rollout=rollout((0, 100))), NEW, id="at 100 percent"),
        pytest.param(
            row(stable=None, candidate=NEW, rollout=rollout()), None, id="the first version, dark"
        ),
    ],
)
def test_pinned(expert: ExpertRow, expected: Version | None) -> None:
    assert pinned(expert, "session", began=7) == expected
