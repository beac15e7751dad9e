"""Reads a router's counters into metrics when it is asked: what concerns the whole mixture.

Nothing here is on the way of a request, and nothing is counted for metrics alone that is not a few
additions a message. Between two points requests go on, so every list is copied before it is told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from moe_core.metrics import Family, Point, one
from moe_core.process_metrics import ProcessMetrics
from moe_core.rows import OnCold
from moe_core.table import Rung
from moe_core.version_names import version_names
from moe_router import metrics as m
from moe_router.colds import End
from moe_router.collect_gates import GateMetrics
from moe_router.collect_versions import version_metrics
from moe_router.engine import Engine
from moe_router.gates import GateArtifacts, Standing, State
from moe_router.ladder import Cause
from moe_router.link import State as LinkState
from moe_router.links import Links
from moe_router.quota import Quota
from moe_router.refusal import Code
from moe_router.tables import Source, Tables
from moe_router.tenants import Tenants

Block = tuple[Family, Iterable[Point]]
CODES = (*(code.name for code in Code), "INTERNAL")


class RouterMetrics:
    """A `Collector` over the parts of one router; to be used on its event loop."""

    def __init__(
        self,
        mixture: str,
        engine: Engine,
        tables: Tables,
        links: Links,
        gates: GateArtifacts,
        streams: Callable[[], int],
        clock: Callable[[], float],
        *,
        detail: bool,
        tenants: Tenants | None = None,
    ) -> None:
        self._mixture, self._engine, self._tables = mixture, engine, tables
        self._links, self._artifacts, self._streams = links, gates, streams
        self._clock, self._process = clock, ProcessMetrics()
        self._tenants = tenants
        self._gates = GateMetrics(mixture, engine, clock(), detail=detail)

    def collect(self) -> Iterator[Block]:
        yield from self._process.collect()
        yield from self._requests()
        yield from self._surroundings()
        if self._tenants is not None and self._tenants.tallies:
            yield from self._by_tenant(self._tenants)
        view = self._tables.view
        if view is not None:
            if any(row.on_cold is OnCold.WAIT for row in view.table.experts):
                yield from self._cold()
            yield from version_metrics(self._mixture, view, self._engine.counters)
            yield from self._gates.collect(view, self._clock())

    def _requests(self) -> Iterator[Block]:
        mixture, counters = self._mixture, self._engine.counters
        yield m.REQUESTS, one(counters.requests, mixture)
        failures = counters.failures.copy()
        yield m.FAILURES, (((mixture, code), failures[code]) for code in CODES)
        yield m.ANSWERS, one(counters.answers, mixture)
        yield m.STAGES, (((mixture, stage), seen) for stage, seen in counters.stages.items())
        yield m.ROWS_UNDER_WAY, one(self._engine.rows_under_way, mixture)
        yield m.STREAMS, one(self._streams(), mixture)
        errors = counters.errors.copy()
        yield m.ERRORS, (((mixture, cause), errors[cause]) for cause in Cause)
        rungs: Counter[Rung] = Counter()
        for (rung, _), rows in counters.rungs.items():
            rungs[rung] += rows
        yield m.RUNG_ROWS, (((mixture, rung), rungs[rung]) for rung in Rung)

    def _cold(self) -> Iterator[Block]:
        mixture, colds = self._mixture, self._engine.counters.colds
        yield m.COLD_ROWS, one(colds.rows, mixture)
        yield m.COLD_WAIT, one(colds.waits, mixture)
        yield m.COLD_ENDS, (((mixture, end), colds.ends[end]) for end in End)

    def _by_tenant(self, tenants: Tenants) -> Iterator[Block]:
        mixture, tallies = self._mixture, list(tenants.tallies.items())
        yield m.UNAUTHENTICATED, one(tenants.unauthenticated, mixture)
        yield m.TENANT_ROWS, (((mixture, name), each.rows) for name, each in tallies)
        yield (
            m.TENANT_REFUSED,
            (((mixture, name, q), each.refused[q]) for name, each in tallies for q in Quota),
        )
        yield m.TENANT_DELAY, (((mixture, name), each.queue_delay) for name, each in tallies)

    def _surroundings(self) -> Iterator[Block]:
        mixture = self._mixture
        states = Counter(link.state for link in self._links.all)
        yield m.LINKS, (((mixture, state.value), states[state]) for state in LinkState)
        yield m.EJECTED, one(len(self._links.outliers), mixture)
        yield m.LATE, one(sum(map(bool, self._links.lateness.values())), mixture)
        yield m.HEDGES, one(self._links.hedged, mixture)
        view = self._tables.view
        if view is None:
            return
        yield m.EPOCH, one(view.table.epoch, mixture)
        yield m.TABLE_AGE, one(self._tables.age_s, mixture)
        served = self._tables.source
        yield m.TABLE_SOURCE, (((mixture, each), int(each is served)) for each in Source)
        names = {gate.name: version_names(gate) for gate in view.table.gates}
        yield (
            m.GATES_READY,
            [
                ((mixture, gate.gate, names[gate.gate][gate.sha256]), int(_loaded(gate)))
                for gate in self._artifacts.standings()
                if gate.sha256 in names.get(gate.gate, {})
            ],
        )


def _loaded(standing: Standing) -> bool:
    return standing.state is State.LOADED
