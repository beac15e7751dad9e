"""Ours, and those it is compared with: the formulas of the HPA and of Knative, on the same load.

The two are written from their documentation, not taken from their code: what they leave out here
(pods that are not ready in the HPA, the activator in Knative) changes nothing in these loads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from moe_core.worker_load import WorkerLoad, readings, sample
from moe_operator.autoscaling import Autoscaling
from moe_operator.router_report import RouterReport
from moe_operator.scaling import History, Size, remember, scale
from tests.operator.autoscaling.workers import HIGHEST, ROWS, Fleet, Worker

_START = datetime(2026, 1, 1, tzinfo=UTC)
_EVERY_S = 2.0


@dataclass(slots=True)
class Ours:
    """What the operator decides, asking routers every two seconds."""

    spec: Autoscaling
    history: History = field(default_factory=History)

    def wanted(self, fleet: Fleet, now: float) -> int:
        replicas = len(fleet.workers)
        if now % _EVERY_S:
            return replicas
        at, there = _START + timedelta(seconds=now), fleet.ready(now)
        pods = frozenset(worker.name for worker in there)
        size = Size(self.spec, replicas, self.spec.low, pods)
        last = self.history.samples[-1] if self.history.samples else None
        heard = readings([_report(there, at, now)])
        self.history = remember(self.history, sample(at, heard, pods, last), size)
        return scale(self.history, size, at)[0]


def _report(workers: list[Worker], at: datetime, now: float) -> RouterReport:
    loads = {worker.name: _load(worker, now) for worker in workers}
    return RouterReport("router", "a", at, "uid", 1, (), {}, {}, loads=loads)


def _load(worker: Worker, now: float) -> WorkerLoad:
    return WorkerLoad(
        incarnation="a",
        queued_rows=worker.waiting * ROWS,
        busy_us=int(worker.busy_s(now) * 1e6),
        rows=worker.ended * ROWS,
        queued_attempts=worker.ended,
        queue_us=int(worker.waited_s * 1e6),
    )


@dataclass(slots=True)
class Hpa:
    """The HorizontalPodAutoscaler with its defaults, on the busy share of the last 15 seconds.

    ceil(replicas · metric / target), no change within a tenth of 1; at most doubled, or four more,
    in 15 seconds; lowered to the highest of the last five minutes.
    """

    share: float
    every_s: float = 15.0
    down_s: float = 300.0
    _busy: dict[str, float] = field(default_factory=dict)
    _asked: list[tuple[float, int]] = field(default_factory=list)

    def wanted(self, fleet: Fleet, now: float) -> int:
        replicas = len(fleet.workers)
        if now % self.every_s:
            return replicas
        busy = {worker.name: worker.busy_s(now) for worker in fleet.ready(now)}
        spent = [s - self._busy[name] for name, s in busy.items() if name in self._busy]
        self._busy = busy
        if not spent:
            return replicas
        ratio = sum(spent) / len(spent) / self.every_s / self.share
        asked = replicas if abs(ratio - 1) <= 0.1 else math.ceil(len(busy) * ratio - 1e-9)
        asked = min(max(asked, 1), max(2 * replicas, replicas + 4), HIGHEST)
        self._asked = [(at, n) for at, n in self._asked if at > now - self.down_s]
        self._asked.append((now, asked))
        return max(asked, min(replicas, max(n for _, n in self._asked)))


@dataclass(slots=True)
class Knative:
    """The Knative Pod Autoscaler with its defaults, on concurrency: requests in the system.

    ceil(mean of 60 s / target); where the mean of 6 s asks for twice the ready pods, panic: up by
    that, never down, until 60 s after it last did.
    """

    share: float
    stable_s: float = 60.0
    panic_s: float = 6.0
    _seen: list[tuple[float, int]] = field(default_factory=list)
    _panics_until: float = -1.0

    def wanted(self, fleet: Fleet, now: float) -> int:
        replicas, ready = len(fleet.workers), len(fleet.ready(now))
        self._seen = [(at, n) for at, n in self._seen if at > now - self.stable_s]
        self._seen.append((now, sum(worker.waiting for worker in fleet.ready(now))))
        if now % _EVERY_S:
            return replicas
        calm, panicked = self._mean(self.stable_s, now), self._mean(self.panic_s, now)
        calm, panicked = (math.ceil(mean / self.share) for mean in (calm, panicked))
        if panicked >= 2 * ready:
            self._panics_until = now + self.stable_s
        if now < self._panics_until:
            return min(max(panicked, calm, replicas), HIGHEST)
        return min(max(calm, ready // 2, 1), HIGHEST)

    def _mean(self, window_s: float, now: float) -> float:
        found = [n for at, n in self._seen if at > now - window_s]
        return sum(found) / len(found)
