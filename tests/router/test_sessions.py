"""Which versions a session gets, and what it is told: over whole rollouts, by any router."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from moe_core.rollout import Outcome, Rollout, WeightSince
from moe_core.rows import ExpertRow
from moe_core.table import Table
from moe_router.budget import SESSION_BURST
from moe_router.marks import Loss, Marks
from moe_router.refusal import Refused
from moe_router.sessions import Taken, pin
from moe_router.view import View
from tests.support.tables import expert, gate, table, version

V1, V2 = version("v1"), version("v2")
SESSIONS = [f"s{n}" for n in range(200)]


def view(row: ExpertRow, epoch: int) -> View:
    return View.of(table([row], [gate(["e"], top_k=1)], epoch=epoch))


def rollout(*weights: tuple[int, int], outcome: Outcome = Outcome.PROGRESSING) -> Rollout:
    steps = tuple(WeightSince(epoch, percent) for epoch, percent in weights)
    return Rollout(2, V2, 1, "2026-01-01T00:00:00Z", outcome, "", "salt", steps)


BEFORE = view(expert("e", V1), 1)
AT_25 = view(replace(expert("e", V1), candidate=V2, rollout=rollout((2, 25))), 2)
AT_50 = view(replace(expert("e", V1), candidate=V2, rollout=rollout((2, 25), (3, 50))), 3)
PROMOTED = view(
    replace(
        expert("e", V2),
        previous=V1,
        rollout=rollout((2, 25), (3, 50), (4, 100), outcome=Outcome.PROMOTED),
    ),
    4,
)
COLD = view(replace(PROMOTED.experts["e"], previous=None), 5)
TAKEN_BACK = view(
    replace(
        expert("e", V1),
        revoked=(V2.sha256,),
        rollout=rollout((2, 25), (3, 50), (4, 0), outcome=Outcome.ROLLED_BACK),
    ),
    4,
)


def versions(seen: View, began: int) -> list[str]:
    found = [pin(seen, session, began).of(seen.experts["e"]) for session in SESSIONS]
    return [v.version for v in found if v is not None]


def told(seen: View, began: int) -> list[bool]:
    return [pin(seen, session, began).taken == (Taken("e", 2),) for session in SESSIONS]


def test_a_share_of_the_sessions_sees_the_candidate() -> None:
    assert set(versions(BEFORE, 1)) == {"v1"}
    assert 25 <= versions(AT_25, 2).count("v2") <= 75
    assert set(versions(AT_25, 1)) == {"v1"}, "a session from before the rollout stays"


@pytest.mark.parametrize(
    "later",
    [pytest.param(AT_50, id="a raised weight"), pytest.param(PROMOTED, id="a promotion")],
)
def test_no_live_session_is_moved_by(later: View) -> None:
    assert versions(later, 2) == versions(AT_25, 2)
    assert not any(told(later, 2))


def test_a_promotion_is_told_to_those_on_the_old_version_when_that_is_gone() -> None:
    on_old = [v == "v1" for v in versions(AT_25, 2)]

    assert set(versions(COLD, 2)) == {"v2"}
    assert told(COLD, 2) == on_old
    assert all(told(COLD, 1)), "they began before the rollout, so they had the old one"
    assert not any(told(COLD, 4)), "they began with the new one"


def test_a_version_taken_back_is_told_to_those_that_had_it() -> None:
    had_it = [v == "v2" for v in versions(AT_50, 3)]

    assert set(versions(TAKEN_BACK, 3)) == {"v1"}
    assert told(TAKEN_BACK, 3) == had_it
    assert not any(told(TAKEN_BACK, 1))
    assert not any(told(TAKEN_BACK, 4)), "they began afterwards"


def test_the_first_version_of_an_expert_takes_nothing_from_anybody() -> None:
    first = view(replace(expert("e", V2), rollout=rollout((3, 100), outcome=Outcome.PROMOTED)), 3)

    assert not any(told(first, 1))


_MAYBE = st.sampled_from([None, V1, V2])


@given(
    st.builds(
        lambda stable, candidate, previous, revoked, changes: replace(
            expert("e", V1),
            stable=stable,
            candidate=candidate,
            previous=previous,
            revoked=tuple(version.sha256 for version in revoked),
            rollout=rollout(*changes[0], outcome=changes[1]),
        ),
        *(_MAYBE, _MAYBE, _MAYBE, st.lists(st.sampled_from([V1, V2]), max_size=2)),
        st.tuples(
            st.lists(st.sampled_from([0, 25, 50, 100]), max_size=3).map(
                lambda percents: tuple(enumerate(percents, 2))
            ),
            st.sampled_from(Outcome),
        ),
    ),
    st.integers(1, 6),
)
def test_a_row_that_is_passed_over_says_nothing_to_any_session(row: ExpertRow, began: int) -> None:
    seen = view(row, 6)
    every = replace(seen, rolling=(row,))
    for session in SESSIONS[:20]:
        assert pin(seen, session, began) == pin(every, session, began)


def test_experts_at_rest_since_their_first_version_are_passed_over() -> None:
    first = rollout((1, 100), outcome=Outcome.PROMOTED)
    assert view(replace(expert("e", V2), rollout=first), 4).rolling == ()
    assert all(seen.rolling for seen in (COLD, TAKEN_BACK, PROMOTED, AT_25))


def test_each_loss_is_told_once() -> None:
    marks = Marks()

    first, other, later = Taken("e", 2), Taken("f", 1), Taken("e", 3)

    assert marks.tell("s", [first, other]) == (first, other)
    assert marks.tell("s", [first, other]) == ()
    assert marks.tell("s", [later]) == (later,)
    assert marks.tell("t", [later]) == (later,)
    gate = Taken("e", 3, gate=True)
    assert marks.tell("t", [later, gate]) == (gate,), "a gate may be named as an expert is"


@given(st.lists(st.integers(0, 30), min_size=1, max_size=200))
def test_marks_are_bounded_and_the_oldest_go_first(order: list[int]) -> None:
    marks, failover = Marks(capacity=5), BEFORE.table.failover
    for number in order:
        marks.account(failover, [Loss(f"s{number}", 1.0, 0.1)])

    last = list(dict.fromkeys(reversed(order)))[:5]
    assert [n for n in range(31) if marks.degraded(f"s{n}")] == sorted(last)


def test_a_request_past_the_budget_of_one_session_charges_nobody() -> None:
    marks, failover = Marks(), BEFORE.table.failover
    spend = Loss("greedy", 0.0, SESSION_BURST / 2)
    marks.account(failover, [spend])

    with pytest.raises(Refused, match="session 'greedy'"):
        marks.account(failover, [Loss("innocent", 1.0, 0.5), spend])

    assert not marks.degraded("innocent")


def test_the_sample_table_can_be_read() -> None:
    path = Path(__file__).parents[1] / "support" / "table.yaml"
    sample = View.of(Table.from_object(yaml.safe_load(path.read_text())))

    assert sorted(sample.experts) == ["dense", "e0", "e1"]
    assert sample.dense[1].expert_id == "dense"
    seen = {pin(sample, session, 3).of(sample.experts["e0"]) for session in SESSIONS}
    assert {v.version for v in seen if v is not None} == {"v1", "v2"}
