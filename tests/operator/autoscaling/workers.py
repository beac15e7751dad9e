"""Workers of one expert under a load, request by request, and how well a policy sized them.

Requests come as a Poisson process and take exponential times; each goes to the worker that is free
soonest. A worker starts some time after it is asked for, and one that is given up ends what it has.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Figures = npt.NDArray[Any]

SERVICE_S = 0.05
ROWS = 16  # of a request
STARTS_S = 10.0
HIGHEST = 16


@dataclass(slots=True)
class Worker:
    """One replica; it counts as a worker does."""

    name: str
    ready_at: float
    free_at: float = 0.0
    given_s: float = 0.0
    ended: int = 0
    waited_s: float = 0.0
    _line: deque[tuple[float, float]] = field(default_factory=deque)  # (when it ends, its wait)

    def give(self, at: float, service_s: float) -> float:
        """Put a request in line; return how long it waits."""
        waits_s = max(self.free_at - at, 0.0)
        self.free_at = at + waits_s + service_s
        self.given_s += service_s
        self._line.append((self.free_at, waits_s))
        return waits_s

    def look(self, now: float) -> None:
        """Count what has ended by now."""
        while self._line and self._line[0][0] <= now:
            self.ended += 1
            self.waited_s += self._line.popleft()[1]

    @property
    def waiting(self) -> int:
        return len(self._line)

    def busy_s(self, now: float) -> float:
        return self.given_s - max(self.free_at - now, 0.0)


class Fleet:
    """The workers there are, and those that are coming."""

    def __init__(self, replicas: int) -> None:
        self._made = 0
        self.workers: list[Worker] = []
        self.resize(replicas, -STARTS_S)

    def resize(self, replicas: int, now: float) -> None:
        """Ask for more workers, or give up the newest."""
        while len(self.workers) < replicas:
            self._made += 1
            self.workers.append(Worker(f"w{self._made}", now + STARTS_S))
        del self.workers[replicas:]

    def ready(self, now: float) -> list[Worker]:
        return [worker for worker in self.workers if worker.ready_at <= now]


class Policy(Protocol):
    """Says how many replicas there are to be; asked every second, and may answer as before."""

    def wanted(self, fleet: Fleet, now: float) -> int: ...


@dataclass(frozen=True, slots=True)
class Run:
    """A policy on a trace: replicas that were ready, asked for and needed, each second (T,)."""

    ready: Figures
    asked: Figures
    needed: Figures
    waits_s: Figures  # of each request

    @property
    def under_percent(self) -> float:
        """Replica-seconds that were missing, of those needed."""
        missing = np.maximum(self.needed - self.ready, 0).sum()
        return float(100 * missing / self.needed.sum())

    @property
    def over_percent(self) -> float:
        """Replica-seconds that were there in vain, of those needed."""
        spare = np.maximum(self.ready - self.needed, 0).sum()
        return float(100 * spare / self.needed.sum())

    @property
    def changes(self) -> int:
        """How often the number asked for changed."""
        return int(np.count_nonzero(np.diff(self.asked)))

    def reversals(self, within_s: int) -> int:
        """How often the number was raised so soon after it was lowered, or the other way round."""
        steps = np.diff(self.asked)
        at = np.flatnonzero(steps)
        turned = np.sign(steps[at[1:]]) != np.sign(steps[at[:-1]])
        return int(np.count_nonzero(turned & (np.diff(at) <= within_s)))

    def wait_ms(self, percentile: float) -> float:
        return float(1000 * np.percentile(self.waits_s, percentile))


def needed(load: Sequence[float], share: float) -> Figures:
    """Return the replicas that an oracle has (T,): those that each load needs, at once."""
    wanted = [max(1, math.ceil(busy / share - 1e-9)) for busy in load]
    return np.asarray(np.minimum(wanted, HIGHEST))


def run(make: Callable[[], Policy], load: Sequence[float], share: float, seed: int) -> Run:
    """Let a policy size the workers under a load: how many would be busy, second by second."""
    rng, policy = np.random.default_rng(seed), make()
    fleet = Fleet(int(needed(load[:1], share)[0]))
    ready, asked, waits = [], [], []
    for second, busy in enumerate(load):
        arrivals = np.sort(rng.random(rng.poisson(busy / SERVICE_S))) + second
        services = rng.exponential(SERVICE_S, len(arrivals))
        there = fleet.ready(second)
        for at, service_s in zip(arrivals.tolist(), services.tolist(), strict=True):
            soonest = min(there, key=_free_at)
            waits.append(soonest.give(at, service_s))
        now = second + 1.0
        for worker in there:
            worker.look(now)
        fleet.resize(policy.wanted(fleet, now), now)
        ready.append(len(there))
        asked.append(len(fleet.workers))
    return Run(np.array(ready), np.array(asked), needed(load, share), np.array(waits))


def _free_at(worker: Worker) -> float:
    return worker.free_at
