"""Which core each process of a benchmark runs on: said beside the figures, as they depend on it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.support.program import Program


@dataclass(frozen=True, slots=True)
class Cores:
    """Where the client (this process), routers and workers run; one core each, if there are."""

    client: int
    router: int
    workers: tuple[int, ...]
    every: frozenset[int]

    @classmethod
    def shared_by(cls, workers: int) -> Self:
        """Give each its core, in turn where there are fewer of them."""
        cores = sorted(os.sched_getaffinity(0))
        client, router, *rest = (cores[n % len(cores)] for n in range(2 + workers))
        return cls(client, router, tuple(rest), frozenset(cores))

    def pin(self, routers: Iterable[Program], workers: Sequence[Program]) -> None:
        """Put this process, and what it started, where it belongs."""
        _move(os.getpid(), self.client)
        for program in routers:
            _move(program.process.pid, self.router)
        for program, core in zip(workers, self.workers, strict=True):
            _move(program.process.pid, core)

    @contextmanager
    def anywhere(self) -> Iterator[None]:
        """Let threads that are started in the block run on every core."""
        os.sched_setaffinity(0, self.every)
        try:
            yield
        finally:
            os.sched_setaffinity(0, {self.client})

    def unpinned(self) -> Callable[[], None]:
        """Return what a child runs first that is to have all cores."""
        return lambda: os.sched_setaffinity(0, self.every)

    def __str__(self) -> str:
        roles = [("client", self.client), ("router (in the client: any), echoes", self.router)]
        roles += [(f"worker {number}", core) for number, core in enumerate(self.workers, 1)]
        return "; ".join(
            f"core {core}: {', '.join(role for role, at in roles if at == core)}"
            for core in sorted({core for _, core in roles})
        )


def _move(pid: int, core: int) -> None:
    """Move all threads of a process; those that they start later follow."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(ProcessLookupError):  # a thread that has ended meanwhile
            os.sched_setaffinity(int(task.name), {core})
