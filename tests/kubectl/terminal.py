"""A person at a command line, on a cluster in memory."""

from __future__ import annotations

import io
from typing import Any

from kubectl_moe import follow
from kubectl_moe.arguments import parser
from kubectl_moe.health import Exit
from kubectl_moe.session import Session, advises
from kubectl_moe.verbs import carry_out
from tests.kubectl.fake_cluster import FakeCluster
from tests.kubectl.fake_routers import FakeRouters


class Terminal:
    """Runs command lines against one cluster; its clock jumps on by what is slept."""

    def __init__(self, *there: dict[str, Any]) -> None:
        self.cluster = FakeCluster(there)
        self.routers = FakeRouters(lambda: self.now)
        self.out, self.progress = io.StringIO(), io.StringIO()
        self.now = 0.0
        self.colour = False

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def run(self, line: str) -> Exit:
        args = parser().parse_args(line.split())
        clock = follow.Clock(lambda: self.now, self.sleep)
        session = Session(
            self.cluster,
            lambda: self.cluster,
            lambda: self.routers,
            self.out,
            self.progress,
            clock,
            colour=self.colour,
            advises=advises(args),
        )
        return carry_out(args, session)

    def lines(self) -> list[str]:
        return self.out.getvalue().splitlines()

    def clear(self) -> None:
        """Forget what was printed."""
        self.out.seek(0)
        self.out.truncate()
