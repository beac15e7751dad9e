"""A router over two workers that hold every expert, one of them behind a proxy, and steady load.

Or that one is at the far end of a wire, in a network of its own. The load knows the bits of every
answer beforehand: the healthy workers gave them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from moe_client.client import RouterClient
from moe_client.messages import Choice, Rows
from moe_client.recording import LayerRows, Recording, Text, random_recording
from moe_client.sessions import SessionBook
from moe_client.steady import SteadyLoad
from moeops.v1.router_pb2 import DescribeResponse
from tests.chaos.faults import FaultyLink, faulty_link
from tests.chaos.wire import Wire
from tests.router import process as routers
from tests.router.process import RouterProcess
from tests.support.artifacts import WrittenExpert, write_expert
from tests.support.scrape import scrape
from tests.support.tables import TableFile, expert, gate, table, version
from tests.worker import process as workers
from tests.worker.process import WorkerProcess

HIDDEN = 64
IDS = ("e0", "e1", "e2", "e3")
# Far more than anything here takes, but on a machine that has no processor time to give.
WAIT_S = 120.0
TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Workers:
    """The artifacts, the worker that nothing happens to, and the one that suffers."""

    directory: Path
    experts: list[WrittenExpert]
    survivor: WorkerProcess
    victim: WorkerProcess
    wire: Wire | None


@contextmanager
def two_workers(directory: Path, wire: Wire | None = None) -> Iterator[Workers]:
    """Start both; the one that suffers at the far end of the wire, if there is one."""
    place: dict[str, Any] = {}
    if wire is not None:
        control = f"unix:{directory / 'control.sock'}"
        place = {"link": wire.far, "control": control, "metrics": "none"}
        place |= {"module": "tests.chaos.inside", "variables": wire.variables}
    written = [write_expert(directory, hidden_size=HIDDEN, seed=n) for n in range(len(IDS))]
    assigned = [one.assigned(name) for name, one in zip(IDS, written, strict=True)]
    with (
        workers.spawn(assigned, HIDDEN, name="survivor", ready=False) as survivor,
        workers.spawn(assigned, HIDDEN, name="victim", **place) as victim,
    ):
        survivor.wait_until_ready()
        yield Workers(directory, written, survivor, victim, wire)


@dataclass
class House:
    """A fresh router, with no opinion of its workers yet, under load."""

    router: RouterProcess
    victim: WorkerProcess
    way: FaultyLink | Wire  # from the router to the victim
    address: str  # where the router finds the victim
    load: SteadyLoad

    @property
    def link(self) -> FaultyLink:
        assert isinstance(self.way, FaultyLink), "there is no proxy"
        return self.way

    @property
    def wire(self) -> Wire:
        assert isinstance(self.way, Wire), "there is no wire"
        return self.way

    def victim_state(self) -> int:
        states = {one.address: one.state for one in self.router.describe().links}
        return int(states[self.address])

    def failed_requests(self) -> int:
        seen: DescribeResponse = self.router.describe()
        return seen.failed_requests

    def refusals(self) -> list[str]:
        """Return what the router's log says of requests that it refused."""
        return [line for line in self.router.log.splitlines() if "request_refused" in line]

    def metric(self, name: str) -> float:
        return scrape(self.router.metrics).value(f"moeops_router_{name}", mixture="tiny")

    def ask(self, count: int) -> None:
        """Go on until so many further requests have ended."""
        wanted = self.load.requests + count
        self.wait(lambda: self.load.requests >= wanted, f"{count} more requests")

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until something becomes so; AssertionError where it does not."""
        until = time.monotonic() + WAIT_S
        while not condition():
            assert time.monotonic() < until, f"never: {what}\n{self.router.log[-4000:]}"
            time.sleep(0.02)


@contextmanager
def house(held: Workers, *, requests_per_s: float = 200.0, sessions: int = 6) -> Iterator[House]:
    """Start a router and the load, and wait until both are under way."""
    rows = [
        expert(name, version("v1", one.sha256, one.uri), backup=IDS[(n + 1) % len(IDS)])
        for n, (name, one) in enumerate(zip(IDS, held.experts, strict=True))
    ]
    content = table(rows, [gate(IDS)], hidden_size=HIDDEN)
    file = TableFile(held.directory / "table.yaml", content)
    with ExitStack() as stack:
        way: FaultyLink | Wire
        if held.wire is None:
            way = stack.enter_context(faulty_link(held.victim.link))
            address = way.address
        else:
            way, address = held.wire, held.victim.link
        listed = f"{held.survivor.link},{address}"
        router = stack.enter_context(
            routers.spawn(mixture="tiny", table_file=str(file.path), workers=listed)
        )
        router.wait_until_routable([one.sha256 for one in held.experts], workers=2)
        recording = _expecting(router.address)
        load = SteadyLoad(
            router.address,
            recording,
            sessions=sessions,
            requests_per_s=requests_per_s,
            timeout_s=TIMEOUT_S,
        )
        stack.enter_context(load)
        made = House(router, held.victim, way, address, load)
        made.ask(160)  # so that it is known how long answers take
        yield made


def _expecting(address: str) -> Recording:
    """Return random requests with the answers that healthy workers give to them."""
    with RouterClient(address) as client:
        served, book = client.describe(), SessionBook()
        gate_sha256 = served.gates[0].sha256

        def expect(part: LayerRows) -> LayerRows:
            rows = Rows(part.layer, part.hidden, (book.ask("healthy", len(part.hidden)),))
            choice = Choice(gate_sha256, part.expert_index, part.expert_weights)
            answer = client.dispatch(rows, choice)
            book.record(rows, answer)
            return replace(part, expected=answer.hidden)

        plain = random_recording(served, texts=4, rows=32)
        return Recording(tuple(Text(tuple(map(expect, text.layers))) for text in plain.texts))
