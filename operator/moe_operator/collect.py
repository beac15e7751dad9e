"""Reads the operator's metrics when it is asked: from its engine, and from the objects it knows.

Objects are read as they lie in the cache, a few at a time; looks go on meanwhile.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, Protocol

from moe_core.drift import Distance
from moe_core.metrics import Family, Labels, Point, one
from moe_core.process_metrics import ProcessMetrics
from moe_operator import labels
from moe_operator import metrics as m
from moe_operator.cache import Cache
from moe_operator.collect_rollouts import rollout_metrics
from moe_operator.drift import Detector
from moe_operator.drifts import Drifts
from moe_operator.ends import Ends
from moe_operator.engine import WORKERS, Engine, Result
from moe_operator.health import Ailment
from moe_operator.kinds import (
    DEPLOYMENT,
    EXPERT,
    GATE,
    MIXTURE,
    ROUTING_TABLE,
    Body,
    Kind,
    labels_of,
    metadata,
    mixture_of,
    spec_of,
    status_of,
)

Block = tuple[Family, Iterable[Point]]
CONTROLLER: Final = "mixture"
_ALARMS: Final = frozenset({*Detector, *Ailment})


class Leads(Protocol):
    """Whether this process leads."""

    def leads(self) -> bool: ...


class OperatorMetrics:
    """A `Collector`; to be used on the event loop of the operator. No lease: it leads."""

    def __init__(
        self,
        engine: Engine,
        ends: Ends,
        drifts: Drifts,
        lease_name: str,
        lease: Leads | None,
        certificates: Callable[[], Iterable[Point]] = tuple,
    ) -> None:
        self._engine, self._ends, self._drifts = engine, ends, drifts
        self._certificates = certificates
        self._lease_name, self._lease = lease_name, lease
        self._process = ProcessMetrics()

    def collect(self) -> Iterator[Block]:
        yield from self._process.collect()
        yield from self._engine_metrics()
        leads = self._lease is None or self._lease.leads()
        if self._lease is not None:
            yield m.LEADS, one(int(leads), self._lease_name)
        if leads:
            yield from object_metrics(self._engine.cache)
            yield from rollout_metrics(self._engine.cache)
            yield from _routing(self._drifts)
            yield from self._ended()
            yield m.CERTIFICATES, self._certificates()

    def _engine_metrics(self) -> Iterator[Block]:
        results, queue = self._engine.results.copy(), self._engine.queue
        yield m.RECONCILES, (((CONTROLLER, result), results[result]) for result in Result)
        yield m.RECONCILE_ERRORS, one(results[Result.ERROR], CONTROLLER)
        yield m.WORKERS, one(WORKERS, CONTROLLER)
        yield m.ACTIVE, one(queue.active, CONTROLLER)
        own = CONTROLLER, CONTROLLER
        yield m.DEPTH, one(queue.depth, *own)
        yield m.ADDS, one(queue.adds, *own)
        yield m.RETRIES, one(queue.retries, *own)
        yield m.QUEUED, one(queue.waited, *own)
        yield m.WORKED, one(queue.worked, *own)

    def _ended(self) -> Iterator[Block]:
        counts, durations = list(self._ends.counts.items()), list(self._ends.durations.items())
        yield (
            m.ENDED,
            (
                ((key.namespace, key.mixture, kind.value, outcome.value, reason.value), count)
                for (key, kind, outcome, reason), count in counts
            ),
        )
        yield (
            m.DURATION,
            (
                ((key.namespace, key.mixture, kind.value, outcome.value), seen)
                for (key, kind, outcome), seen in durations
            ),
        )


def _routing(drifts: Drifts) -> Iterator[Block]:
    """Give how far the routing of watched gates is from their baselines."""
    seen = [((key.namespace, key.mixture, of.gate, of.version), h) for key, of, h in drifts.all()]

    def each(read: Callable[[Distance], float]) -> Iterator[Point]:
        for place, history in seen:
            for (layer, context), distance in history.distances.items():
                yield (*place, str(layer), context), read(distance)

    yield m.PSI, each(lambda distance: distance.psi)
    yield m.PSI_CHANCE, each(lambda distance: distance.chance)
    yield m.DRIFT_ROWS, ((place, history.rows) for place, history in seen)


def object_metrics(cache: Cache) -> Iterator[Block]:
    """Give what is told of objects that are there."""
    tables, deployments = cache.all(ROUTING_TABLE), cache.all(DEPLOYMENT)
    yield m.EPOCH, ((_of(ROUTING_TABLE, t), int(spec_of(t).get("epoch", 0))) for t in tables)
    own = [(kind, body) for kind in (MIXTURE, EXPERT, GATE) for body in cache.all(kind)]
    yield m.READY, _conditions(own, "Ready")
    yield m.DEGRADED, _conditions(own, "Degraded")
    yield m.ALARM, _alarms(own)
    yield m.STUCK, _stuck((kind, body) for kind, body in own if kind != MIXTURE)
    experts = cache.all(EXPERT)
    yield m.EXPERT_WANTED, ((_expert(e), _asked_for(e)) for e in experts)
    yield (
        m.EXPERT_READY,
        ((_expert(e), int(status_of(e).get("readyReplicas", 0))) for e in experts),
    )
    yield from _replicas(deployments)


def _replicas(deployments: list[Body]) -> Iterator[Block]:
    by_component: dict[str, list[Body]] = {labels.WORKER: [], labels.ROUTER: []}
    for body in deployments:
        by_component.setdefault(labels_of(body).get(labels.COMPONENT, ""), []).append(body)
    workers, routers = by_component[labels.WORKER], by_component[labels.ROUTER]
    names = Counter(map(_version, workers))

    def told(body: Body) -> Labels:
        own = _version(body)
        digest = labels_of(body).get(labels.DIGEST, "")
        return own if names[own] == 1 else (*own[:-1], f"{own[-1]}@{digest}")

    yield m.VERSION_WANTED, ((told(body), _wanted(body)) for body in workers)
    yield m.VERSION_READY, ((told(body), _ready(body)) for body in workers)
    yield m.ROUTERS_WANTED, ((_of(DEPLOYMENT, body), _wanted(body)) for body in routers)
    yield m.ROUTERS_READY, ((_of(DEPLOYMENT, body), _ready(body)) for body in routers)


def _asked_for(expert: Body) -> int:
    """Return the pods that an Expert is to have: by its load, where that decides, else by spec."""
    by_spec = int(spec_of(expert).get("replicas", 1))
    said = status_of(expert).get("autoscaling") if "autoscaling" in spec_of(expert) else None
    return int((said or {}).get("replicas", by_spec))


def _wanted(deployment: Body) -> int:
    return int(spec_of(deployment).get("replicas", 0))


def _ready(deployment: Body) -> int:
    return int(status_of(deployment).get("readyReplicas", 0))


def _version(deployment: Body) -> Labels:
    own = labels_of(deployment)
    place = _of(DEPLOYMENT, deployment)
    return (*place, own.get(labels.EXPERT_ID, ""), own.get(labels.VERSION, ""))


def _of(kind: Kind, body: Body) -> Labels:
    return str(metadata(body).get("namespace", "")), mixture_of(kind, body)


def _expert(body: Body) -> Labels:
    return (*_of(EXPERT, body), str(spec_of(body).get("expertId", "")))


def _object(kind: Kind, body: Body) -> Labels:
    return (*_of(kind, body), kind.name, str(metadata(body).get("name", "")))


def _conditions(own: Iterable[tuple[Kind, Body]], wanted: str) -> Iterator[Point]:
    for kind, body in own:
        for condition in _told(body):
            if condition.get("type") == wanted:
                yield _object(kind, body), int(condition.get("status") == "True")


def _alarms(own: Iterable[tuple[Kind, Body]]) -> Iterator[Point]:
    for kind, body in own:
        for condition in _told(body):
            if condition.get("type") in _ALARMS:
                place = (*_object(kind, body), str(condition["type"]))
                yield place, int(condition.get("status") == "True")


def _stuck(own: Iterable[tuple[Kind, Body]]) -> Iterator[Point]:
    for kind, body in own:
        for condition in _told(body):
            if condition.get("type") == "Progressing" and condition.get("status") == "False":
                yield (*_object(kind, body), str(condition.get("reason", ""))), 1


def _told(body: Body) -> Iterable[Mapping[str, Any]]:
    return status_of(body).get("conditions") or ()
