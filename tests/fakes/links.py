"""Workers in memory behind the engine's seam: no sockets, answers in the next turn of the loop.

An expert of theirs multiplies its rows by a factor, so that tests know what comes out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from moe_router.flight import Waiter
from moe_router.ladder import Cause
from moe_router.message import Message
from moe_router.replica import Offer, Routable
from moeops.v1.link_pb2 import GroupResult, Result
from moeops.v1.types_pb2 import Failure

Deed = Callable[["FakeWorker", Message, Waiter], None]


def compute(worker: FakeWorker, message: Message, waiter: Waiter) -> None:
    """Answer as an honest worker does."""
    groups, answers, at = [], [], 0
    for part in message.parts:
        rows = message.rows[at : at + len(part.pairs)]
        at += len(part.pairs)
        if part.ask.sha256 not in worker.factors:
            groups.append(GroupResult(failure=Failure(code=5, message="not held here")))
            continue
        with np.errstate(all="ignore"):
            answer = (rows * worker.factors[part.ask.sha256]).astype(rows.dtype)
        bad = int((~np.isfinite(answer.astype(np.float32))).any(axis=1).sum())
        groups.append(GroupResult(nonfinite_rows=bad, norm_sum=float(len(rows))))
        answers.append(answer)
    body = np.concatenate(answers).tobytes() if answers else b""
    waiter.answered(message, Result(groups=groups), memoryview(body))


def reset(worker: FakeWorker, message: Message, waiter: Waiter) -> None:
    """Break the link; the worker is gone."""
    worker.alive = False
    waiter.failed(message, Cause.BROKEN)


def run_late(worker: FakeWorker, message: Message, waiter: Waiter) -> None:
    """Let the attempt's time pass."""
    waiter.failed(message, Cause.DEADLINE)


def refuse(code: int) -> Deed:
    """Answer each group with a failure of this code."""

    def act(worker: FakeWorker, message: Message, waiter: Waiter) -> None:
        failure = GroupResult(failure=Failure(code=code, message="no"))
        waiter.answered(message, Result(groups=[failure] * len(message.parts)), memoryview(b""))

    return act


def garble(worker: FakeWorker, message: Message, waiter: Waiter) -> None:
    """Answer with fewer bytes than there are rows."""
    groups = [GroupResult() for _ in message.parts]
    waiter.answered(message, Result(groups=groups), memoryview(b"abc"))


@dataclass
class FakeWorker:
    """Holds artifacts, by digest: what their rows are multiplied with."""

    factors: dict[str, float]
    act: Deed = compute
    alive: bool = True
    seen: list[tuple[str, int]] = field(default_factory=list)  # (sha256, rows)


class FakeLinks:
    """Links to these workers; `before` is called ahead of each message's deed."""

    def __init__(self, workers: Mapping[str, FakeWorker], layers: Iterable[int] = (0,)) -> None:
        self.workers = dict(workers)
        self._layers = frozenset(layers)
        self.load: dict[str, int] = {}
        self.lateness: dict[str, int] = {}
        self.sent = 0
        self.before: Callable[[], Any] = lambda: None

    @property
    def routable(self) -> Routable:
        return Routable.of(
            Offer(name, dict.fromkeys(worker.factors, self._layers))
            for name, worker in self.workers.items()
            if worker.alive
        )

    def send(self, message: Message, waiter: Waiter) -> bool:
        worker = self.workers[message.worker]
        if not worker.alive:
            return False
        self.sent += 1
        worker.seen += [(part.ask.sha256, len(part.pairs)) for part in message.parts]
        asyncio.get_running_loop().call_soon(self._deliver, worker, message, waiter)
        return True

    def _deliver(self, worker: FakeWorker, message: Message, waiter: Waiter) -> None:
        self.before()
        worker.act(worker, message, waiter)
