"""`python -m tests.benchmarks.table_changes`: how long a changed table stops a router's event loop.

The parts of a router that take a table in, on one event loop, which notes the longest time that it
did nothing else: as a table arrives from the API server, read beside the loop and each part once,
and read whole on the loop. Both keep their copy on disk, and are told of the same changes in turns.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Final

from moe_core.parts import Part, head_of, part_name, split
from moe_core.table import Table
from moe_router.copies import Copies
from moe_router.intake import Intake
from moe_router.said import Said
from moe_router.sources import TableObject
from moe_router.tables import Tables
from tests.benchmarks.router_memory import Size
from tests.fakes.kube import ScriptedApi, event, listed
from tests.support.tables import to_object, version

_CHANGES: Final = 9
_TICK_S: Final = 0.001
_PAUSE_S: Final = 0.3


@dataclass(frozen=True, slots=True)
class Change:
    """A table after a change: whole, and as a head with the parts that are new in it."""

    whole: dict[str, Any]
    head: dict[str, Any]
    new: tuple[Part, ...]


class Workers:
    """Everybody is there."""

    def __init__(self) -> None:
        self.settled = asyncio.Event()
        self.settled.set()

    def set_addresses(self, addresses: Collection[str]) -> None:
        """Nobody is linked."""


@dataclass(slots=True)
class Taking:
    """What takes tables in, as a router has it, with its copy in a folder."""

    tables: Tables
    intake: Intake

    @classmethod
    async def begin(cls, folder: Path) -> Taking:
        tables, copies = Tables("tiny", time.monotonic), Copies(folder, "default", "tiny")
        intake = Intake(tables, Workers(), copies, time.time, time.monotonic)
        await intake.open()
        return cls(tables, intake)

    def read(self, body: dict[str, Any]) -> None:
        """Read a table here and now, and take it in."""
        self.intake.take_table(Said.of(body))

    async def longest_stop_s(self, act: Callable[[], None], epoch: int) -> float:
        """Do something that brings a table; return for how long the loop stood still."""
        longest, before = 0.0, time.perf_counter()
        act()
        while True:
            await asyncio.sleep(_TICK_S)
            now = time.perf_counter()
            longest, before = max(longest, now - before - _TICK_S), now
            if self.tables.view is not None and self.tables.view.table.epoch == epoch:
                return longest


def changes(content: Table, at_once: int) -> Iterator[Change]:
    """Give a table, and then what becomes of it as so many experts at a time get a candidate."""
    parts: tuple[Part, ...] = ()
    for number in range(_CHANGES + 1):
        first = number * at_once % len(content.experts)
        rows = list(content.experts)
        for at in range(first, first + at_once) if number else ():
            rows[at] = replace(rows[at], candidate=version(f"{rows[at].name}-{number}"))
        content = replace(content, epoch=number + 1, experts=tuple(rows))
        whole, before = to_object(content), parts
        parts = split(whole["spec"], before)
        meta = {**whole["metadata"], "resourceVersion": str(content.epoch)}
        head = {**whole, "metadata": meta, "spec": head_of(whole["spec"], parts)}
        yield Change(whole, head, tuple(part for part in parts if part not in before))


async def _on_the_loop(steps: Sequence[Change], folder: Path) -> list[float]:
    taking = await Taking.begin(folder)
    return [
        await taking.longest_stop_s(partial(taking.read, step.whole), number)
        for number, step in enumerate(steps, 1)
    ]


async def _beside_the_loop(steps: Sequence[Change], folder: Path) -> list[float]:
    taking, api, stops = await Taking.begin(folder), ScriptedApi(), []
    source = TableObject(api, "default", "tiny")
    follow = asyncio.create_task(source.follow(taking.intake.take_table, taking.intake.confirm))
    for number, step in enumerate(steps, 1):
        told = listed(1, step.head) if number == 1 else [event("MODIFIED", step.head)]
        answers = [_revision(part) for part in step.new]
        stops.append(await taking.longest_stop_s(partial(api.add, told, *answers), number))
        await asyncio.sleep(_PAUSE_S)
    follow.cancel()
    with suppress(asyncio.CancelledError):
        await follow
    return stops


def _revision(part: Part) -> dict[str, Any]:
    meta = {"name": part_name("tiny", part.sha256), "resourceVersion": "1"}
    return {"metadata": meta, "data": part.to_data()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0]).parse_args(arguments)
    logging.getLogger("moeops").setLevel(logging.ERROR)
    print(f"median (longest) of {_CHANGES} changes, ms; clients miss a router after 200 ms")
    print(f"{'objects':>8}{'changed':>9}{'whole, on the loop':>20}{'parts, beside it':>18}")
    for layers in (1, 12, 58):
        for at_once in (1, layers * 256 // 2):
            steps = list(changes(Size(256, layers, apart=True).table(), at_once))
            told = f"{layers * 256:>8,}{at_once:>9,}"
            for way, width in ((_on_the_loop, 20), (_beside_the_loop, 18)):
                with tempfile.TemporaryDirectory() as folder:
                    _, *stops = asyncio.run(way(steps, Path(folder)))
                longest = f"{1e3 * median(stops):.0f} ({1e3 * max(stops):.0f})"
                told += f"{longest:>{width}}"
            print(told, flush=True)


if __name__ == "__main__":
    main()
