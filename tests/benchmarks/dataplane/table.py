"""What the benchmark of the data plane is run with, and the lines of its table."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from tests.benchmarks.cores import Cores
from tests.benchmarks.echo import EchoProcess
from tests.client.served import Served


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table; `kept` is None where there is no goal."""

    what: str
    measured: str
    goal: str = ""
    kept: bool | None = None

    def line(self) -> str:
        verdict = {None: "", True: "kept", False: "missed"}[self.kept]
        return f"| {self.what} | {self.measured} | {self.goal} | {verdict} |"


@dataclass(frozen=True, slots=True)
class Bench:
    """What is measured, and for how long."""

    served: Served
    echo: EchoProcess
    loop: asyncio.AbstractEventLoop
    cores: Cores
    rounds: int
    seconds: float

    def wait_for(self, ask: Callable[..., Coroutine[Any, Any, object]], *arguments: Any) -> object:
        """Ask, and wait for the answer."""
        return self.loop.run_until_complete(ask(*arguments))
