"""Reads a worker's counters into metrics when it is asked, from copies made under their locks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import reduce

from moe_core.metrics import Family, Labels, Point, one
from moe_core.process_metrics import ProcessMetrics
from moe_worker import metrics as m
from moe_worker.assignment import Assigned
from moe_worker.backlog import Backlog
from moe_worker.counters import Counted, Counters, Work
from moe_worker.failure import Code
from moe_worker.loader import State
from moe_worker.phases import Event
from moe_worker.shelf import Slot

Block = tuple[Family, Iterable[Point]]
Assignments = Sequence[tuple[Assigned, State]]

_STAGES = {
    Event.FETCHED: "fetch",
    Event.VERIFIED: "verify",
    Event.LOADED: "load",
    Event.WARMED: "warm",
}


class WorkerMetrics:
    """A `Collector` over the parts of one worker."""

    def __init__(
        self,
        mixture: str,
        counters: Counters,
        backlog: Backlog,
        states: Callable[[], Assignments],
        fingerprint: Callable[[], str],
        *,
        detail: bool,
    ) -> None:
        self._mixture, self._counters, self._backlog = mixture, counters, backlog
        self._states, self._fingerprint = states, fingerprint
        self._detail, self._process = detail, ProcessMetrics()

    def collect(self) -> Iterator[Block]:
        yield from self._process.collect()
        counted, states = self._counters.counted(), self._states()
        yield m.ABOUT, one(1, self._mixture, self._fingerprint())
        yield from self._sums(counted)
        labels = self._labels(states)
        yield from _phases(labels, states)
        yield from self._experts(labels, counted)

    def _sums(self, counted: Counted) -> Iterator[Block]:
        mixture, sums = self._mixture, counted.sums
        yield m.ROWS, one(sums.rows, mixture)
        yield m.ATTEMPTS, one(sums.attempts, mixture)
        yield m.BATCHES, one(sums.batches, mixture)
        yield m.MIXED, one(sums.mixed_batches, mixture)
        codes = ((code.name, counted.failures.get(code, 0)) for code in Code)
        yield m.FAILURES, (((mixture, name), count) for name, count in codes)
        yield m.BUSY, one(sums.busy_us / 1e6, mixture)
        yield m.QUEUED_ROWS, one(self._backlog.rows, mixture)
        yield m.QUEUE_ROOM, one(self._backlog.max_rows, mixture)
        yield m.QUEUE_DELAY, one(counted.queued, mixture)
        yield m.COMPUTE, one(counted.computed, mixture)

    def _labels(self, states: Assignments) -> dict[str, Labels]:
        """Return what names an artifact; one under two ids is told once, as it is counted."""
        labels: dict[str, Labels] = {}
        for assigned, _ in states:
            own = self._mixture, assigned.expert_id, assigned.version
            taken = own in labels.values()
            named = (*own[:2], f"{assigned.version}@{assigned.sha256[:10]}") if taken else own
            labels.setdefault(assigned.sha256, named)
        return labels

    def _experts(self, labels: dict[str, Labels], counted: Counted) -> Iterator[Block]:
        own: dict[str, list[tuple[Slot, Work]]] = {sha256: [] for sha256 in labels}
        for slot, work in counted.work.items():
            if slot[0] in own:
                own[slot[0]].append((slot, work))
        sums = [
            (labels[sha256], reduce(_plus, (work for _, work in parts), Work()))
            for sha256, parts in own.items()
        ]
        yield m.EXPERT_ROWS, ((key, work.rows) for key, work in sums)
        yield m.EXPERT_BATCHES, ((key, work.batches) for key, work in sums)
        yield m.EXPERT_BUSY, ((key, work.busy_us / 1e6) for key, work in sums)
        if self._detail:
            layers = [
                ((*labels[sha256], str(slot[1])), work)
                for sha256, parts in own.items()
                for slot, work in parts
            ]
            yield m.LAYER_ROWS, ((key, work.rows) for key, work in layers)
            yield m.LAYER_BUSY, ((key, work.busy_us / 1e6) for key, work in layers)


def _plus(first: Work, other: Work) -> Work:
    return Work(
        first.rows + other.rows, first.batches + other.batches, first.busy_us + other.busy_us
    )


def _phases(labels: dict[str, Labels], states: Assignments) -> Iterator[Block]:
    known = {assigned.sha256: state for assigned, state in reversed(states)}
    yield m.PHASE, (((*labels[sha256], state.phase.name), 1) for sha256, state in known.items())
    yield (
        m.STAGE,
        (
            ((*labels[sha256], _STAGES[event]), took)
            for sha256, state in known.items()
            for event, took in state.took.items()
            if event in _STAGES
        ),
    )
