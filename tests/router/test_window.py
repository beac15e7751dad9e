"""Rows at work are bounded, nobody waits without need, and who gives up takes nothing along."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from moe_router.refusal import Code, Refused
from moe_router.window import Window

LONG_S = 60.0


class Scene:
    """Requests at work in a window of 8 rows, each until it is told to end."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.window = Window(8, {"big": 3}, lambda: self.now_s)
        self.begun: list[str] = []
        self.waited: list[float] = []
        self.ends: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def ask(
        self, name: str, flow: str, rows: int, within_s: float = LONG_S, session: str = "s"
    ) -> None:
        self.ends[name] = asyncio.Event()
        work = self._work(name, flow, session, rows, within_s)
        self.tasks[name] = asyncio.create_task(work)
        await self.settle()

    async def end(self, name: str) -> None:
        self.ends[name].set()
        await self.settle()

    async def settle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    async def _work(self, name: str, flow: str, session: str, rows: int, within_s: float) -> None:
        async with self.window.turn(flow, session, rows, within_s) as waited_s:
            self.begun.append(name)
            self.waited.append(waited_s)
            await self.ends[name].wait()


@asynccontextmanager
async def scene() -> AsyncIterator[Scene]:
    made = Scene()
    yield made
    for end in made.ends.values():
        end.set()
    await asyncio.gather(*made.tasks.values(), return_exceptions=True)


async def test_nobody_waits_while_there_is_room() -> None:
    async with scene() as it:
        for name in "wxyz":
            await it.ask(name, "a", 2)
        assert it.begun == list("wxyz")
        assert it.waited == [0.0] * 4
        assert it.window.waiting == 0


async def test_a_giant_leaves_room_for_others_beside_it() -> None:
    async with scene() as it:
        await it.ask("giant", "a", 1_000)
        await it.ask("small", "b", 1)
        assert it.begun == ["giant", "small"]


async def test_who_waits_begins_when_one_ends_the_small_beside_the_hog() -> None:
    async with scene() as it:
        for number in range(8):
            await it.ask(f"hog {number}", "hog", 2)
        await it.ask("small", "small", 1)
        assert it.begun == [f"hog {n}" for n in range(4)]
        it.now_s = 3.0
        for number in range(2):
            await it.end(f"hog {number}")
        assert it.begun[4:] == ["hog 4", "small", "hog 5"], "one that came first, then it"
        assert it.waited[4:] == [3.0] * 3


async def test_a_session_begins_beside_a_hog_of_the_same_tenant() -> None:
    async with scene() as it:
        for number in range(8):
            await it.ask(f"hog {number}", "tenant", 2, session="hog")
        await it.ask("small", "tenant", 1, session="small")
        for number in range(2):
            await it.end(f"hog {number}")
        assert it.begun[4:] == ["hog 4", "small", "hog 5"]


async def test_who_has_waited_too_long_is_refused_and_the_next_one_goes_on() -> None:
    async with scene() as it:
        for number in range(4):
            await it.ask(f"old {number}", "a", 2)
        await it.ask("late", "b", 7, within_s=0.0)
        await it.ask("next", "b", 1)
        with pytest.raises(Refused, match="7 rows waited 0 s") as caught:
            await it.tasks["late"]
        assert (caught.value.code, caught.value.retry_after_ms) == (Code.RESOURCE_EXHAUSTED, 50)
        await it.end("old 0")
        assert it.begun[4:] == ["next"]


async def test_who_is_cancelled_as_its_turn_comes_gives_it_on() -> None:
    async with scene() as it:
        for number in range(4):
            await it.ask(f"old {number}", "a", 2)
        await it.ask("gone", "b", 8)
        await it.ask("next", "c", 2)
        it.ends["old 0"].set()
        it.tasks["gone"].cancel()
        await it.settle()
        assert it.begun[4:] == ["next"]
        for number in range(1, 4):
            await it.end(f"old {number}")
        await it.end("next")
        for name in "wxyz":
            await it.ask(name, "d", 2)
        assert it.begun[5:] == list("wxyz"), "it is as new"
