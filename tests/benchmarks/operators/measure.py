"""Measures one operator with so many objects, step by step; the same steps for both."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from moe_operator.kinds import EXPERT, Body
from moe_operator.rest import ApiServer
from tests.benchmarks.operators.crowd import Crowd, version
from tests.benchmarks.operators.figures import IDLE_S, Figures
from tests.benchmarks.operators.process import Calls, Program, Running
from tests.benchmarks.operators.written import Written
from tests.kube.server import KubeServer

CHANGES = 24
_BETWEEN_S = 0.3  # one change and the next
_QUIET_S = 4.0
_RESTING = 0.04  # share of a core

Versions = Callable[[Mapping[str, Body]], Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Bench:
    """One operator on the objects of one namespace. `asked` reads from its tables which version
    of each expert it has taken notice of.
    """

    server: KubeServer
    api: ApiServer
    namespace: str
    crowd: Crowd
    program: Program
    written: Written
    asked: Versions
    figures: Figures
    folder: Path

    @contextmanager
    def running(self) -> Iterator[Running]:
        flags = ("--namespace", self.namespace)
        log = self.folder / f"{self.namespace}-{self.program.name}.log"
        with Running(self.server, self.program, flags, log) as process:
            yield process

    async def start(self, process: Running, complete: Callable[[], object]) -> None:
        """Wait for the first tables, then until it rests; note what that took."""
        self.say("starts")
        place = self.server.audit.position()
        until = await self.until(process, lambda _: complete())
        self.figures.start_s = until - process.began
        self.figures.start_cpu_s = process.cpu_s
        await self.quiet(process)
        self.figures.start_calls = self.calls(place)

    async def idle(self, process: Running) -> None:
        """Note what it uses and asks for while nothing changes."""
        self.say("is idle")
        place, used, since = self.server.audit.position(), process.cpu_s, time.perf_counter()
        await asyncio.sleep(IDLE_S)
        elapsed = time.perf_counter() - since
        self.figures.idle_percent = (process.cpu_s - used) / elapsed * 100
        self.figures.idle_calls = self.calls(place)

    async def change(self, process: Running, prefix: str) -> dict[str, str]:
        """Ask for other versions, one by one; return what is asked for in the end."""
        self.say("sees changes")
        names, place = self.crowd.some(CHANGES), self.server.audit.position()
        used, asked = process.cpu_s, dict[str, str]()
        for number in range(CHANGES):
            name = names[number % len(names)]
            asked[name] = f"{prefix}{number // len(names)}"
            took = await self.change_one(process, name, asked[name])
            self.figures.change_s.append(took)
            await asyncio.sleep(_BETWEEN_S)
        await self.quiet(process)
        self.figures.change_cpu_s = process.cpu_s - used
        self.figures.change_calls = self.calls(place)
        self.figures.peak_mb = process.peak_mb
        return asked

    async def change_one(self, process: Running, name: str, said: str) -> float:
        """Return how long after the request a table has it, in seconds."""
        since = time.perf_counter()
        await self.ask_for(name, said)
        return await self.until(process, lambda t: self.asked(t).get(name) == said) - since

    async def restart(self) -> None:
        """Note how long after a start a table has what was asked for while nobody ran."""
        self.say("starts again")
        name = self.crowd.some(1)[0]
        await self.ask_for(name, "v-late")
        with self.running() as process:
            until = await self.until(process, lambda t: self.asked(t).get(name) == "v-late")
            self.figures.restart_s = until - process.began

    async def ask_for(self, name: str, said: str) -> None:
        await self.api.merge(EXPERT, self.namespace, name, {"spec": version(name, said)})

    async def until(self, process: Running, check: Callable[[Mapping[str, Body]], object]) -> float:
        """Wait until the tables are so, or the operator has ended."""
        waiting = asyncio.create_task(self.written.until(check))
        try:
            while not (await asyncio.wait((waiting,), timeout=1))[0]:
                process.check()
            return waiting.result()
        finally:
            waiting.cancel()

    async def quiet(self, process: Running) -> None:
        """Wait until it writes nothing and does next to nothing, for a while.

        Who only lacks a processor writes nothing either.
        """
        while True:
            place, used = self.server.audit.position(), process.cpu_s
            await asyncio.sleep(_QUIET_S)
            if process.cpu_s - used < _QUIET_S * _RESTING and not self.calls(place).writes:
                return

    def calls(self, place: int) -> Calls:
        """Return what it has asked for since a place in the log."""
        return Calls.since(self.server, self.program.account, place)

    def say(self, what: str) -> None:
        line = f"{self.crowd.count} objects: {self.program.name} {what}"
        print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)
