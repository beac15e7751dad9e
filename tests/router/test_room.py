"""Who is let in and who is shed: never more than the limit, and nobody keeps others out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_router.refusal import Code, Refused
from moe_router.room import Held, Room

LIMIT = 60


def fill(room: Room, *sessions: str) -> dict[str, int]:
    """Let each in turn take row after row until none gets any more; return who has how many."""
    had = dict.fromkeys(sessions, 0)
    shed: set[str] = set()
    while len(shed) < len(sessions):
        for session in sessions:
            try:
                room.take([(session, 1)])
            except Refused:
                shed.add(session)
            else:
                had[session] += 1
    return had


@pytest.mark.parametrize(
    ("sessions", "each"),
    [
        pytest.param("a", 30, id="one alone takes half"),
        pytest.param("ab", 20, id="two a third each"),
        pytest.param("abcde", 10, id="five a sixth each"),
    ],
)
def test_all_that_want_everything_get_the_same_and_leave_as_much(sessions: str, each: int) -> None:
    room = Room(LIMIT)

    assert fill(room, *sessions) == dict.fromkeys(sessions, each)
    assert LIMIT - room.rows == each


def test_one_that_comes_anew_finds_room_beside_a_greedy_one() -> None:
    room = Room(LIMIT)
    fill(room, "greedy")

    room.take([("small", 30)])
    with pytest.raises(Refused, match="60 rows are under way here and at most 60 may be"):
        room.take([("greedy", 1)])


def test_a_first_request_needs_only_to_fit() -> None:
    room = Room(LIMIT)

    held = room.take([("giant", LIMIT)])
    with pytest.raises(Refused) as caught:
        room.take([("other", 1)])
    assert (caught.value.code, caught.value.retry_after_ms) == (Code.RESOURCE_EXHAUSTED, 50)
    room.give_back(held)
    with room.hold([("s", 7)]):
        assert room.rows == 7
    assert room.rows == 0


def test_who_is_shed_is_told_why_and_when_to_come_again() -> None:
    room = Room(LIMIT)
    room.take([("s", 20)])

    with pytest.raises(
        Refused, match="session 's' has 20 rows under way and 40 are free"
    ) as caught:
        room.take([("t", 1), ("s", 21)])
    assert (caught.value.code, caught.value.retry_after_ms) == (Code.RESOURCE_EXHAUSTED, 50)
    room.take([("t", 1), ("s", 20)])


def test_what_could_never_fit_is_the_callers_mistake() -> None:
    with pytest.raises(Refused, match="sequences have 61 rows; a request may have at most 60"):
        Room(LIMIT).take([("a", 1), ("b", LIMIT)])


wanted = st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 40)), min_size=1, max_size=3)


@given(st.lists(st.one_of(wanted, st.integers(0, 9)), max_size=40))
def test_it_never_holds_more_than_its_limit_and_loses_nothing(
    doings: list[list[tuple[str, int]] | int],
) -> None:
    room, held = Room(LIMIT), list[Held]()
    for doing in doings:
        if isinstance(doing, int):
            if held:
                room.give_back(held.pop(doing % len(held)))
            continue
        before = room.rows
        try:
            held.append(room.take(doing))
        except Refused:
            assert room.rows == before
        assert room.rows == sum(rows for one in held for _, rows in one) <= LIMIT
    for one in held:
        room.give_back(one)
    assert fill(room, "a") == {"a": LIMIT // 2}, "it is as new"
