"""Whatever a router's end of a link says: the worker goes on, and others get their own rows."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moe_core.dtypes import FLOAT32
from moe_core.exactness import prove
from moe_core.frames import PROTOCOL, encode
from moe_core.kernel import ExpertKernel
from moe_worker.address import Address
from moe_worker.admission import Gatekeeper
from moe_worker.backlog import Backlog
from moe_worker.compute import Computer
from moe_worker.counters import Counters
from moe_worker.intake import Intake
from moe_worker.links import Handlers, Links
from moe_worker.program import clock_us
from moeops.v1.link_pb2 import Heartbeat, Hello, LinkFrame
from moeops.v1.types_pb2 import DTYPE_FLOAT32
from tests.fuzz.damage import CORPUS, blows, pieces, struck
from tests.support.link import Peer, compute, rows_of

HIDDEN, INTERMEDIATE = 16, 24
DIGEST = hashlib.sha256(b"an expert").hexdigest()


@dataclass
class Served:
    """A worker in this process, without a loader; `alive` says that none of its threads ended."""

    address: str
    backlog: Backlog
    kernel: ExpertKernel
    threads: list[threading.Thread]

    @property
    def alive(self) -> bool:
        return all(thread.is_alive() for thread in self.threads)


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    draw = torch.Generator().manual_seed(1)
    gate, up = (torch.randn(INTERMEDIATE, HIDDEN, generator=draw) for _ in range(2))
    down = torch.randn(HIDDEN, INTERMEDIATE, generator=draw)
    kernel = ExpertKernel(gate, up, down, prove(torch.float32, HIDDEN, INTERMEDIATE))
    backlog, counters = Backlog(1000), Counters(clock_us)
    keeper = Gatekeeper(
        HIDDEN, FLOAT32, 1000, lambda sha256, layer: kernel if sha256 == DIGEST else None
    )
    intake = Intake(keeper, backlog, counters, clock_us)
    computer = Computer(backlog, counters, 64, _say_nothing, clock_us)
    address = Address(path=str(tmp_path_factory.mktemp("link") / "w.sock"))
    beat = LinkFrame(heartbeat=Heartbeat())
    links = Links(address, Handlers(intake.take, lambda: beat), _say_nothing)
    frame = LinkFrame()
    frame.inventory.protocol = PROTOCOL
    links.publish(frame)
    bodies: list[Callable[[], None]] = [computer.run, links.accept, links.beat]
    threads = [threading.Thread(target=body, daemon=True) for body in bodies]
    for thread in threads:
        thread.start()
    yield Served(f"unix:{address.path}", backlog, kernel, threads)
    backlog.end()
    links.stop(0)


def _say_nothing(event: str, **fields: Any) -> None:
    pass


def rows(value: float, count: int = 3) -> torch.Tensor:
    return torch.full((count, HIDDEN), value)


def honest(protocol: int) -> bytes:
    """Return what an honest router would say: three attempts, one for what is not here."""
    said = []
    if protocol > 1:
        said.append(encode(LinkFrame(hello=Hello(protocol=protocol)), protocol=protocol))
    for attempt, digest in enumerate((DIGEST, "cd" * 32, DIGEST), 1):
        header = compute(attempt, [(digest, 3)], hidden_size=HIDDEN, dtype=DTYPE_FLOAT32)
        body = rows(float(attempt)).numpy().tobytes()
        said += [encode(header, body, protocol), body]
    return b"".join(said)


def say(worker: Served, data: bytes, cuts: list[int]) -> None:
    """Say it on a link of its own, end, and read until the worker hangs up."""
    with Peer(worker.address, protocol=1) as hostile:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for piece in pieces(data, cuts):
                hostile.sock.sendall(piece)
            hostile.sock.shutdown(socket.SHUT_WR)
        assert hostile.hung_up()


def assert_well(worker: Served, seed: int = 7) -> None:
    """Another router's rows are answered with the bits that they have alone."""
    given_rows = rows(float(seed), 5)
    with Peer(worker.address) as router:
        header = compute(1, [(DIGEST, 5)], hidden_size=HIDDEN, dtype=DTYPE_FLOAT32)
        router.send(header, given_rows.numpy().tobytes())
        answers = rows_of(router.result(1), DTYPE_FLOAT32, HIDDEN)
    assert answers.tobytes() == worker.kernel(given_rows).numpy().tobytes()
    assert worker.alive


@pytest.mark.parametrize("protocol", range(1, PROTOCOL + 1))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(blows(), st.lists(st.integers(1, 300), max_size=3))
def test_damaged_questions_hurt_nobody_else(
    worker: Served, protocol: int, blows: list[Any], cuts: list[int]
) -> None:
    say(worker, struck(honest(protocol), blows), cuts)

    assert_well(worker)


@pytest.mark.parametrize("data", CORPUS)
def test_what_is_no_frame_hurts_nobody_else(worker: Served, data: bytes) -> None:
    say(worker, data, [])

    assert_well(worker)


def test_no_room_is_lost_by_all_that(worker: Served) -> None:
    until = time.monotonic() + 30
    while worker.backlog.rows:
        assert time.monotonic() < until, f"{worker.backlog.rows} rows are under way for nobody"
        time.sleep(0.01)
