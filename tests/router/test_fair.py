"""Who begins next: shares by weight, and a bound on how far others may pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from moe_router.fair import FairQueue, Waiting, by_tenant_and_session

FLOWS = "abcd"
weights = st.fixed_dictionaries({flow: st.integers(1, 8) for flow in FLOWS})
flows, rows = st.sampled_from(FLOWS), st.integers(1, 5_000)


class Turns:
    """Requests of flows that wait, where flows are tenants, or sessions of one of two tenants."""

    def __init__(self, weights: Mapping[str, int], *, sessions: bool = False) -> None:
        self.sessions = sessions
        tenants = {"t": 3, "u": 1} if sessions else weights
        self.queue: FairQueue = by_tenant_and_session(tenants)

    def join(self, flow: str, rows: int) -> Waiting:
        one = Waiting("t", flow, rows) if self.sessions else Waiting(flow, "s", rows)
        self.queue.append(one)
        return one

    def begin(self) -> Waiting | None:
        """Have one begin; those of the other tenant are not told of."""
        while self.queue:
            one = self.queue.popleft()
            if not self.sessions or one.flow == "t":
                return one
        return None

    def flow(self, one: Waiting) -> str:
        return one.session if self.sessions else one.flow


def begun(turns: Turns) -> list[str]:
    """Let all begin; return whose they were."""
    found = []
    while (one := turns.begin()) is not None:
        found.append(turns.flow(one))
    return found


def test_turns_are_by_weight_and_first_come_first_served_within_a_session() -> None:
    turns = Turns({"a": 2, "b": 1})
    mine = [turns.join("a", 10) for _ in range(4)]
    for _ in range(2):
        turns.join("b", 10)

    first = [turns.begin() for _ in range(3)]
    assert Counter(one.flow for one in first if one) == {"a": 2, "b": 1}
    assert [one for one in first if one and one.flow == "a"] == mine[:2]


def test_cost_is_in_rows() -> None:
    for sessions in (False, True):
        turns = Turns({}, sessions=sessions)
        for _ in range(2):
            turns.join("giant", 1_000)
        for _ in range(5):
            turns.join("small", 1)

        assert begun(turns) == ["giant", *["small"] * 5, "giant"]


def test_sessions_share_what_their_tenant_has_and_no_more() -> None:
    """However many a tenant has: the other one has a half."""
    queue = by_tenant_and_session({})
    for session in "abcdef":
        for _ in range(10):
            queue.append(Waiting("many", session, 1))
    for _ in range(10):
        queue.append(Waiting("one", "s", 1))

    first = [queue.popleft() for _ in range(18)]
    assert Counter(one.flow for one in first) == {"many": 9, "one": 9}
    assert {*Counter(one.session for one in first if one.flow == "many").values()} == {1, 2}


def test_who_leaves_costs_its_flow_nothing() -> None:
    for sessions in (False, True):
        turns = Turns({}, sessions=sessions)
        gone = turns.join("a", 1_000)
        turns.join("a", 1)
        turns.join("b", 1)
        turns.queue.remove(gone)

        assert begun(turns) == ["a", "b"]


def test_the_last_to_leave_leaves_nothing_behind() -> None:
    turns = Turns({})
    turns.queue.remove(turns.join("a", 1))

    assert not turns.queue
    assert turns.begin() is None


@given(weights, st.lists(st.tuples(flows, rows), min_size=2, max_size=60), st.booleans())
def test_two_that_always_wait_get_what_their_weights_say(
    weights: Mapping[str, int], asked: list[tuple[str, int]], sessions: bool
) -> None:
    """Theorem 1 of Goyal et al.: over any interval, within one request of each."""
    weights = dict.fromkeys(FLOWS, 1) if sessions else weights
    queue, left = Turns(weights, sessions=sessions), Counter(flow for flow, _ in asked)
    for number, (flow, count) in enumerate(asked):
        queue.join(flow, count)
        if sessions:
            queue.queue.append(Waiting("u", str(number), count))
    most = {flow: max([n for f, n in asked if f == flow], default=0) for flow in FLOWS}
    starts = [dict.fromkeys(FLOWS, 0.0)]
    while all(left[flow] for flow in "ab") and (one := queue.begin()) is not None:
        left[flow := queue.flow(one)] -= 1
        got = starts[-1] | {flow: starts[-1][flow] + one.rows / weights[flow]}
        starts.append(got)
        for before in starts:
            apart = abs((got["a"] - before["a"]) - (got["b"] - before["b"]))
            assert apart <= most["a"] / weights["a"] + most["b"] / weights["b"] + 1e-6


@given(
    weights,
    st.lists(st.one_of(st.none(), st.tuples(st.sampled_from("bcd"), rows)), max_size=120),
    st.lists(rows, min_size=1, max_size=8),
    st.booleans(),
)
def test_how_far_others_pass_one_does_not_depend_on_how_much_they_ask(
    weights: Mapping[str, int],
    others: list[tuple[str, int] | None],
    own: list[int],
    sessions: bool,
) -> None:
    """`a` asks again when its last request has begun. Each other flow then passes it by its share
    of what that cost, and by one request more, whether it asks for ten times its share or less."""
    weights = dict.fromkeys(FLOWS, 1) if sessions else weights
    queue, todo = Turns(weights, sessions=sessions), list(own)
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
            flow = queue.flow(one)
            passed[flow] += one.rows
            share = previous / weights["a"] * weights[flow]
            assert passed[flow] <= share + most[flow] + 1e-6


@given(weights, st.lists(st.tuples(flows, flows, rows, st.booleans()), max_size=60))
def test_nobody_is_forgotten_and_nobody_begins_twice(
    weights: Mapping[str, int], asked: list[tuple[str, str, int, bool]]
) -> None:
    queue, there, seen = by_tenant_and_session(weights), [], []
    for flow, session, count, leaves in asked:
        queue.append(one := Waiting(flow, session, count))
        if leaves:
            queue.remove(one)
        else:
            there.append(one)
        if len(there) % 3 == 2 and queue:
            seen.append(queue.popleft())
    while queue:
        seen.append(queue.popleft())
    assert sorted(map(id, seen)) == sorted(map(id, there))
    assert not queue
