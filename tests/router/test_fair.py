"""Who begins next: shares by weight, and a bound on how far others may pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from moe_router.fair import FairQueue

FLOWS = "abcd"
weights = st.fixed_dictionaries({flow: st.integers(1, 8) for flow in FLOWS})
rows = st.integers(1, 5_000)


def begun(queue: FairQueue) -> list[str]:
    """Let all begin; return whose they were."""
    found = []
    while (one := queue.begin()) is not None:
        found.append(one.flow)
    return found


def test_turns_are_by_weight_and_first_come_first_served_within_a_flow() -> None:
    queue = FairQueue({"a": 2, "b": 1})
    for _ in range(4):
        queue.join("a", 10)
    for _ in range(2):
        queue.join("b", 10)

    assert Counter(begun(queue)[:3]) == {"a": 2, "b": 1}
    assert not queue


def test_cost_is_in_rows() -> None:
    queue = FairQueue({})
    for _ in range(2):
        queue.join("giant", 1_000)
    for _ in range(5):
        queue.join("small", 1)

    assert begun(queue) == ["giant", *["small"] * 5, "giant"]


def test_who_leaves_costs_its_flow_nothing() -> None:
    queue = FairQueue({})
    gone = queue.join("a", 1_000)
    queue.join("a", 1)
    queue.join("b", 1)
    queue.leave(gone)

    assert begun(queue) == ["a", "b"]


def test_the_last_to_leave_leaves_nothing_behind() -> None:
    queue = FairQueue({})
    queue.leave(queue.join("a", 1))

    assert not queue
    assert queue.begin() is None


@given(weights, st.lists(st.tuples(st.sampled_from(FLOWS), rows), min_size=2, max_size=60))
def test_two_that_always_wait_get_what_their_weights_say(
    weights: Mapping[str, int], asked: list[tuple[str, int]]
) -> None:
    """Theorem 1 of Goyal et al.: over any interval, within one request of each."""
    queue, left = FairQueue(weights), Counter(flow for flow, _ in asked)
    for flow, count in asked:
        queue.join(flow, count)
    most = {flow: max([n for f, n in asked if f == flow], default=0) for flow in FLOWS}
    starts = [dict.fromkeys(FLOWS, 0.0)]
    while all(left[flow] for flow in "ab") and (one := queue.begin()) is not None:
        left[one.flow] -= 1
        got = starts[-1] | {one.flow: starts[-1][one.flow] + one.rows / weights[one.flow]}
        starts.append(got)
        for before in starts:
            apart = abs((got["a"] - before["a"]) - (got["b"] - before["b"]))
            assert apart <= most["a"] / weights["a"] + most["b"] / weights["b"] + 1e-6


@given(
    weights,
    st.lists(st.one_of(st.none(), st.tuples(st.sampled_from("bcd"), rows)), max_size=120),
    st.lists(rows, min_size=1, max_size=8),
)
def test_how_far_others_pass_one_does_not_depend_on_how_much_they_ask(
    weights: Mapping[str, int],
    others: list[tuple[str, int] | None],
    own: list[int],
) -> None:
    """`a` asks again when its last request has begun. Each other flow then passes it by its share
    of what that cost, and by one request more, whether it asks for ten times its share or less."""
    queue, todo = FairQueue(weights), list(own)
    previous, passed, mine = 0, Counter[str](), None
    most = Counter[str]()
    for step in others:
        if step is not None:
            most[step[0]] = max(most[step[0]], step[1])
            queue.join(*step)
        if mine is None and todo:
            mine, passed = queue.join("a", todo.pop()), Counter[str]()
        if step is None and (one := queue.begin()) is not None:
            if one is mine:
                previous, mine = one.rows, None
                continue
            if mine is None:
                continue
            passed[one.flow] += one.rows
            share = previous / weights["a"] * weights[one.flow]
            assert passed[one.flow] <= share + most[one.flow] + 1e-6


@given(weights, st.lists(st.tuples(st.sampled_from(FLOWS), rows, st.booleans()), max_size=60))
def test_nobody_is_forgotten_and_nobody_begins_twice(
    weights: Mapping[str, int], asked: list[tuple[str, int, bool]]
) -> None:
    queue, there, seen = FairQueue(weights), [], []
    for flow, count, leaves in asked:
        one = queue.join(flow, count)
        if leaves:
            queue.leave(one)
        else:
            there.append(one)
        if len(there) % 3 == 2 and (begins := queue.begin()) is not None:
            seen.append(begins)
    while (one_more := queue.begin()) is not None:
        seen.append(one_more)
    assert sorted(map(id, seen)) == sorted(map(id, there))
    assert not queue
