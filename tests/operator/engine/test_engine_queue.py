"""The queue: each key once, never two at a time, and again when it is due."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_operator.queue import Deadlines, WorkQueue


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_a_key_added_twice_is_taken_once() -> None:
    queue = WorkQueue[str](Clock())
    queue.add("a")
    queue.add("a")
    queue.add("b")
    assert [queue.poll() for _ in range(3)] == ["a", "b", None]


async def test_a_key_changed_while_it_is_worked_on_comes_again_afterwards() -> None:
    queue = WorkQueue[str](Clock())
    queue.add("a")
    assert queue.poll() == "a"
    queue.add("a")
    assert queue.poll() is None
    queue.done("a", None)
    assert queue.poll() == "a"
    queue.done("a", None)
    assert queue.poll() is None


async def test_what_the_work_did_itself_is_no_reason_to_do_it_again() -> None:
    queue = WorkQueue[str](Clock())
    queue.add("a")
    assert queue.poll() == "a"
    queue.add("a", "own")
    queue.add("a", "another's")
    queue.expected("a", "own")
    queue.expected("a", "never told")
    queue.done("a", None)
    assert queue.poll() == "a"
    queue.add("a", "own")
    queue.expected("a", "own")
    queue.expected("b", "own")
    queue.done("a", None)
    assert queue.poll() is None


async def test_a_deadline_brings_a_key_back_and_the_newest_counts() -> None:
    clock = Clock()
    queue = WorkQueue[str](clock)
    queue.add("a")
    assert queue.poll() == "a"
    queue.done("a", 5.0)
    clock.now = 4.9
    assert queue.poll() is None
    queue.add("a")
    assert queue.poll() == "a"
    queue.done("a", 60.0)
    clock.now = 5.1
    assert queue.poll() is None
    clock.now = 65.0
    assert queue.poll() == "a"


async def test_failures_wait_longer_each_time_until_one_succeeds() -> None:
    clock = Clock()
    queue = WorkQueue[str](clock)
    pauses = []
    for _ in range(12):
        queue.add("a")
        await queue.take()
        pauses.append(queue.failed("a"))
    assert pauses == sorted(pauses)
    assert pauses[0] == pytest.approx(0.1)
    assert pauses[-1] == pytest.approx(30.0)
    queue.add("a")
    await queue.take()
    queue.done("a", None)
    queue.add("a")
    await queue.take()
    assert queue.failed("a") == pytest.approx(0.1)
    queue.add("a")
    await queue.take()
    assert queue.failed("a", at_least_s=7.0) == pytest.approx(7.0)


async def test_a_waiting_worker_is_woken_by_a_deadline_that_is_set_later() -> None:
    queue = WorkQueue[str](asyncio.get_running_loop().time)
    queue.add("a")
    assert await queue.take() == "a"
    waiting = asyncio.create_task(queue.take())
    await asyncio.sleep(0)
    queue.done("a", 0.01)
    assert await asyncio.wait_for(waiting, 5) == "a"


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9)), max_size=20))
def test_each_key_is_due_once_at_its_newest_time(sets: list[tuple[str, int]]) -> None:
    deadlines = Deadlines[str]()
    for key, at in sets:
        deadlines.set(key, at)
    newest = dict(sets)
    for now in range(10):
        assert set(deadlines.due(now)) == {key for key, at in newest.items() if at == now}
    assert deadlines.next() is None
