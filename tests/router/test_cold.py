"""Rows that wait for an expert that sleeps: how long, how many, and what becomes of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_core.rows import ExpertRow, OnCold
from moe_core.table import Rung
from moe_router.cold import LEAST_RESERVE_S, LEAST_S, RESERVE_S, UNKNOWN_S, Patience, Waking
from moe_router.colds import Colds, End
from moe_router.engine import Answer, Limits
from moe_router.ladder import Cause
from moe_router.refusal import Code, Refused
from moeops.v1.router_pb2 import ForcedVersion, SequenceRows
from tests.fakes.links import reset
from tests.router.bench import A2, A, B, Bench, C, canary, mixture, rungs, values, worker
from tests.support.tables import expert

OF_A = ("a", A.sha256)


@pytest.mark.parametrize(
    ("now_s", "deadline_s", "known", "until_s"),
    [
        pytest.param(0, 10, None, 9.5, id="until half a second is left"),
        pytest.param(0, 1, None, 0.75, id="or a quarter of a short time"),
        pytest.param(0, 0.0625, None, 0.0125, id="which is not too little to ask a worker"),
        pytest.param(0, 0.05, None, None, id="so that the shortest time is not for waiting"),
        pytest.param(9.4, 10, None, 9.5, id="as long as there is some"),
        pytest.param(9.5, 10, None, None, id="not in the time for the answer"),
        pytest.param(0, 10, Waking(-2, 8), 9.5, id="it should come in 6 s"),
        pytest.param(0, 10, Waking(0, 9.6), None, id="it would come too late"),
        pytest.param(0, 10, Waking(-90, 90), 9.5, id="it should be there now"),
        pytest.param(0, 10, Waking(-95, 50), 5, id="it should have been there for long"),
        pytest.param(0, 10, Waking(-100, 50), None, id="in twice the time it did not come"),
        pytest.param(0, 40, Waking(-5, 0.1), LEAST_S - 5, id="half a minute in any case"),
        pytest.param(0, 10, Waking(-UNKNOWN_S, None), None, id="it never came"),
    ],
)
def test_how_long_rows_wait(
    now_s: float, deadline_s: float, known: Waking | None, until_s: float | None
) -> None:
    wakings = {} if known is None else {OF_A: known}
    assert Patience(now_s, 0, deadline_s, wakings).until(OF_A) == pytest.approx(until_s)


times = st.floats(0, 1000, allow_nan=False)


@given(times, times, st.floats(0.01, 600), st.none() | times)
def test_there_is_always_time_left_for_an_answer(
    since_s: float, later_s: float, whole_s: float, took_s: float | None
) -> None:
    began_s = since_s + later_s
    wakings = {OF_A: Waking(since_s, took_s)}
    end_s = Patience(began_s, began_s, began_s + whole_s, wakings).until(OF_A)
    if end_s is not None:
        assert began_s < end_s
        left_s = began_s + whole_s - end_s
        assert left_s >= min(RESERVE_S, max(LEAST_RESERVE_S, whole_s / 4)) * 0.999


def test_how_long_a_version_took_is_known_from_the_first_row_without_it() -> None:
    colds = Colds(10)
    colds.lack(OF_A, 5.0)
    colds.lack(OF_A, 7.0)
    colds.changed({B.sha256}, 20.0)
    assert colds.wakings == {OF_A: Waking(5.0, None)}
    colds.changed({A.sha256}, 25.0)
    assert colds.wakings == {}
    colds.lack(OF_A, 60.0)
    assert colds.wakings == {OF_A: Waking(60.0, 20.0)}


@pytest.mark.parametrize(
    ("took_s", "hint_ms"),
    [
        pytest.param(None, 1000, id="nobody knows when"),
        pytest.param(2.0, 1500, id="when it should be there"),
        pytest.param(60.0, 5000, id="not for ever"),
        pytest.param(0.1, 100, id="not at once"),
    ],
)
def test_who_may_not_wait_is_told_when_to_try_again(took_s: float | None, hint_ms: int) -> None:
    colds = Colds(10)
    if took_s is not None:
        colds.lack(OF_A, 0.0)
        colds.changed({A.sha256}, took_s)
    colds.lack(OF_A, 100.0)
    assert colds.enter(OF_A, 8, 100.5) is None
    refused = colds.enter(OF_A, 3, 100.5)
    assert refused is not None
    assert (refused.code, refused.retry_after_ms) == (Code.RESOURCE_EXHAUSTED, hint_ms)
    assert "8 rows wait here for experts that sleep, and at most 10 may" in refused.message
    assert "expert 'a'" in refused.message
    colds.leave(8, End.SERVED, 1.0)
    assert colds.enter(OF_A, 3, 100.5) is None


def cold(row: ExpertRow | None = None) -> ExpertRow:
    return replace(row or expert("a", A, backup="b"), on_cold=OnCold.WAIT)


def bench(row: ExpertRow | None = None, *, limits: Limits | None = None) -> Bench:
    """An engine whose expert a has no worker; b and c have one."""
    return Bench(mixture(cold(row)), {"others": worker(B, C)}, limits=limits)


def wake(it: Bench) -> None:
    it.links.workers["awake"] = worker(A)
    it.engine.changed()


async def waiting(it: Bench, experts: list[list[int]], **options: object) -> asyncio.Task[Answer]:
    """Ask, and let what can be answered be answered."""
    task = asyncio.create_task(it.dispatch(experts, **options))
    await it.settle()
    return task


def ends(it: Bench) -> dict[End, int]:
    return dict(it.engine.counters.colds.ends)


async def test_rows_wait_for_their_expert_and_nothing_is_degraded() -> None:
    it = bench()
    task = await waiting(it, [[0, 1], [1, 2]])
    assert not task.done()
    assert it.engine.counters.colds.rows == 1
    assert it.tally(A).waiting_rows == 1
    assert it.links.workers["others"].seen == [(B.sha256, 2), (C.sha256, 1)], "sent at once"

    it.now_s = 3.0
    wake(it)
    answer = await task
    assert values(answer) == [1.5, 3.0]
    assert rungs(answer) == []
    assert it.engine.counters.colds.rows == it.tally(A).waiting_rows == 0
    assert ends(it) == {End.SERVED: 1}
    assert it.engine.counters.colds.waits.sum == 3.0
    assert not it.tally(A).errors, "it was not missed"


async def test_what_it_would_be_too_late_for_climbs_the_ladder() -> None:
    it = bench()
    task = await waiting(it, [[0, 1]], deadline_ms=2000)
    it.now_s = 1.6
    it.engine.changed()
    answer = await task
    assert values(answer) == [2.0], "the backup"
    assert rungs(answer) == [(Rung.BACKUP, "a", 1)]
    assert ends(it) == {End.CLIMBED: 1}
    assert it.tally(A).errors == {Cause.UNREACHABLE: 1}
    assert it.tally(A).waiting_rows == 0


async def test_the_clock_alone_ends_a_wait() -> None:
    """By a timer of the event loop: nothing else happens meanwhile."""
    it = bench()
    task = await waiting(it, [[0, 1]], deadline_ms=200)
    it.now_s = 0.16
    assert rungs(await task) == [(Rung.BACKUP, "a", 1)]


async def test_rows_for_an_expert_that_degrades_do_not_wait() -> None:
    it = Bench(mixture(expert("a", A, backup="b")), {"others": worker(B, C)})
    assert rungs(await it.dispatch([[0, 1]])) == [(Rung.BACKUP, "a", 1)]
    assert ends(it) == {}


async def test_a_table_that_says_otherwise_ends_the_wait() -> None:
    it = bench()
    task = await waiting(it, [[0, 1]])
    it.tables.on_change(lambda _: it.engine.changed())
    it.offer(replace(mixture(expert("a", A, backup="b")), epoch=2))
    assert rungs(await task) == [(Rung.BACKUP, "a", 1)]


async def test_a_known_time_that_is_too_long_is_not_waited_for() -> None:
    it = bench()
    task = await waiting(it, [[0, 1]], deadline_ms=30_000)
    it.now_s = 20.0
    wake(it)
    await task
    del it.links.workers["awake"]

    assert rungs(await it.dispatch([[0, 1]], deadline_ms=5000)) == [(Rung.BACKUP, "a", 1)]
    later = await waiting(it, [[0, 1]], deadline_ms=30_000)
    assert not later.done(), "who has the time waits"
    wake(it)
    assert rungs(await later) == []


async def test_more_than_may_wait_are_refused_and_told_when_to_try_again() -> None:
    it = bench(limits=Limits(rows_at_work=16))  # a quarter of them may wait
    first = await waiting(it, [[0, 1]] * 3)
    refused = await it.refused([[0, 1]] * 2)
    assert (refused.code, refused.retry_after_ms) == (Code.RESOURCE_EXHAUSTED, 1000)
    assert rungs(await it.dispatch([[1, 2]] * 2)) == [], "others are served"
    second = await waiting(it, [[0, 1]])
    wake(it)
    for task in (first, second):
        assert rungs(await task) == []
    assert ends(it) == {End.REFUSED: 2, End.SERVED: 4}
    assert it.engine.counters.failures == {"RESOURCE_EXHAUSTED": 1}


async def test_rows_of_a_request_that_ends_wait_no_more() -> None:
    it = bench()
    task = await waiting(it, [[0, 1]])
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert it.engine.counters.colds.rows == it.tally(A).waiting_rows == 0
    assert ends(it) == {End.ABANDONED: 1}
    wake(it)


async def test_one_that_loses_its_last_worker_in_the_middle_is_waited_for() -> None:
    it = bench()
    it.links.workers["dies"] = worker(A, act=reset)
    task = await waiting(it, [[0, 1]])
    assert not task.done()
    wake(it)
    answer = await task
    assert values(answer) == [1.5]
    assert rungs(answer) == [(Rung.REPLICA, "a", 1)]


async def test_a_worker_that_holds_it_and_does_not_answer_is_no_sleeper() -> None:
    it = bench()
    it.links.workers["fails"] = worker(A, act=lambda w, m, waiter: waiter.failed(m, Cause.DEADLINE))
    assert rungs(await it.dispatch([[0, 1]])) == [(Rung.BACKUP, "a", 1)]


async def test_stable_answers_for_a_candidate_that_is_away() -> None:
    it = bench(canary())
    it.links.workers["stable"] = worker(A)
    assert rungs(await it.dispatch([[0, 1]])) == [(Rung.STABLE, "a", 1)]


async def test_a_forced_version_is_not_waited_for() -> None:
    it = bench(canary())
    forced = [ForcedVersion(expert_id="a", sha256=A2.sha256)]
    sessions = [SequenceRows(session="s", rows=1, forced=forced)]
    assert (await it.refused([[0, 1]], sessions=sessions)).code is Code.UNAVAILABLE


async def test_where_the_ladder_has_nothing_else_the_wait_ends_in_a_refusal() -> None:
    it = Bench(mixture(cold(), ladder=(Rung.REPLICA,)), {"others": worker(B, C)})
    task = await waiting(it, [[0, 1]], deadline_ms=2000)
    it.now_s = 1.6
    it.engine.changed()
    with pytest.raises(Refused, match="expert 'a'"):
        await task


@given(
    st.lists(st.lists(st.integers(0, 2), min_size=2, max_size=2, unique=True), min_size=1),
    st.lists(st.sampled_from(["wake a", "wake b", "later", "refuse"]), max_size=6),
)
async def test_every_row_is_answered_once_whatever_comes(
    experts: Sequence[list[int]], doings: Sequence[str]
) -> None:
    """Two experts sleep, and either may come, or not in time."""
    rows = (cold(expert("a", A)), cold(expert("b", B)))
    it = Bench(mixture(*rows), {"c": worker(C)})
    task = await waiting(it, list(experts), deadline_ms=4000)
    for doing in doings:
        if doing.startswith("wake"):
            it.links.workers[doing] = worker(A if doing == "wake a" else B)
        else:
            it.now_s += 1.0
        it.engine.changed()
        await it.settle()
    it.now_s = 4.0
    it.engine.changed()
    answer = await asyncio.wait_for(task, 10)
    assert len(values(answer)) == len(experts)
    colds = it.engine.counters.colds
    asked = sum(row.count(0) + row.count(1) for row in experts)
    assert colds.rows == 0
    assert sum(colds.ends.values()) == asked
    assert sum(rows for _, _, rows in rungs(answer)) == colds.ends[End.CLIMBED]
