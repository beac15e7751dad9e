"""Stands in for nodes, for the controller of Deployments, and for the programs in the pods.

Works on a real API server: makes pods out of Deployments, gives them addresses and says that they
are ready; answers as routers and workers would, behind the operator's `Asker`. Routers here follow
the table at once and see every worker that is ready.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from moe_core.parts import MissingPart
from moe_core.worker_load import WorkerLoad
from moe_operator.cluster import ApiError, Lister, Writer
from moe_operator.drift import Tallies
from moe_operator.kinds import (
    BUDGET,
    CONTROLLER_REVISION,
    DEPLOYMENT,
    POD,
    ROUTING_TABLE,
    Body,
    labels_of,
    metadata,
)
from moe_operator.reports import Unanswered
from moe_operator.router_report import Counters, GateLoading, Loading, RouterReport
from moe_operator.world import WorkerReport
from tests.support.whole import whole_table


class Api(Writer, Lister, Protocol):
    """An API server, real or in memory."""


_MADE_BY = "test/deployment"
_BOUNDS_US = (1000, 10000)
_LONG_AGO = "2026-01-01T00:00:00Z"


@dataclass(slots=True)
class Nodes:
    """Everything of one namespace that is not the API server or the operator."""

    api: Api
    namespace: str
    subnet: str = "10.1"  # first half of the pods' addresses
    at_once: int = 1  # Deployments whose pods are made together
    node: str = ""  # where pods are placed that are made from now on
    # What routers count, by sha256.
    counters: dict[str, Counters] = field(default_factory=dict)
    # What gates chose at each router, by sha256.
    chosen: dict[str, Tallies] = field(default_factory=dict)
    # Versions whose pods do not become ready, with what their workers say.
    refused: dict[str, str] = field(default_factory=dict)
    # How much more loss a version has on golden sets, in bits per token; 0 where it is not here.
    losses: dict[str, float] = field(default_factory=dict)
    broken_evaluations: int = 0  # so many more evaluators fail
    stuck: set[str] = field(default_factory=set)  # versions whose pods do not become ready
    lost: set[str] = field(default_factory=set)  # addresses that do not answer any more
    # How many workers of a version would compute all the time, by sha256, if there were as many.
    busy: dict[str, float] = field(default_factory=dict)
    asked: int = 0  # how often an operator asked a router
    clock: Callable[[], float] = time.monotonic
    _pods: dict[str, Body] = field(default_factory=dict)
    _tables: tuple[Body, ...] = ()
    _deployments: set[str] = field(default_factory=set)  # by uid, as they were
    _addresses: int = 1
    _worked_s: dict[str, float] = field(default_factory=dict)  # by pod
    _worked_at: float = 0.0

    async def run(self) -> None:
        """Do what controllers and kubelets do, for ever."""
        while True:
            with contextlib.suppress(ApiError):  # an object went meanwhile
                await self.step()
            await asyncio.sleep(0.03)

    async def step(self) -> None:
        """Do once what there is to do."""
        tables, _ = await self.api.list_all(ROUTING_TABLE, self.namespace, brief=False)
        if any("parts" in table["spec"] for table in tables):
            kept, _ = await self.api.list_all(CONTROLLER_REVISION, self.namespace, brief=False)
            with contextlib.suppress(MissingPart):  # there is a newer head meanwhile
                self._tables = tuple(whole_table(table, kept) for table in tables)
        else:
            self._tables = tuple(tables)
        wanted, _ = await self.api.list_all(DEPLOYMENT, self.namespace, brief=False)
        await self._collect({str(metadata(deployment)["uid"]) for deployment in wanted})
        pods, _ = await self.api.list_all(POD, self.namespace, brief=False)
        self._pods = {str(metadata(pod)["name"]): pod for pod in pods}
        for at in range(0, len(wanted), self.at_once):
            some = wanted[at : at + self.at_once]
            await asyncio.gather(*(self._follow(deployment) for deployment in some))
        names = {metadata(deployment)["name"] for deployment in wanted}
        for pod in pods:
            if labels_of(pod).get("moeops.dev/component") == "evaluator":
                await self._evaluate(pod)
            elif labels_of(pod).get(_MADE_BY) not in names:
                await self.api.delete(POD, pod)

    async def _collect(self, deployments: set[str]) -> None:
        """Delete the budgets of Deployments that went, as the garbage collector does."""
        gone, self._deployments = self._deployments - deployments, deployments
        if not gone:
            return
        for budget in (await self.api.list_all(BUDGET, self.namespace, brief=True))[0]:
            if {owner["uid"] for owner in metadata(budget)["ownerReferences"]} & gone:
                await self.api.delete(BUDGET, budget)

    async def _evaluate(self, pod: Body) -> None:
        """Let an evaluator end at once, with its result or without."""
        if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
            return
        broken = self.broken_evaluations > 0
        self.broken_evaluations -= broken
        said = {"error": "no router answers"} if broken else self._result(pod)
        end = {"exitCode": int(broken), "message": json.dumps(said), "finishedAt": _LONG_AGO}
        container = {"name": "evaluator", "state": {"terminated": end}}
        status = {"phase": "Failed" if broken else "Succeeded", "containerStatuses": [container]}
        name = str(metadata(pod)["name"])
        await self.api.merge(POD, self.namespace, name, {"status": status}, "status")

    def _result(self, pod: Body) -> dict[str, Any]:
        (container,) = pod["spec"]["containers"]
        told = {v["name"]: v.get("value", "") for v in container["env"]}
        mean = self.losses.get(told["MOE_EVAL_CANDIDATE"], 0.0)
        return {
            "golden": told["MOE_EVAL_GOLDEN_SHA256"],
            "expert": told["MOE_EVAL_EXPERT"],
            "stable": told["MOE_EVAL_STABLE"],
            "candidate": told["MOE_EVAL_CANDIDATE"],
            "all": {"n": 64, "mean": mean, "sd": 0.01, "stable": 2.0, "candidate": 2.0 + mean},
            "flippedPercent": 0.4,
        }

    def take(self, other: Nodes) -> None:
        """Be as other nodes are."""
        self.counters, self.refused = dict(other.counters), dict(other.refused)
        self.losses, self.broken_evaluations = dict(other.losses), other.broken_evaluations
        self.busy = dict(other.busy)
        self._pods, self._tables = dict(other._pods), other._tables
        self._deployments = set(other._deployments)
        self._addresses = other._addresses

    def see(self, tables: Iterable[Body]) -> None:
        """Let the routers have these tables."""
        self._tables = tuple(tables)

    @property
    def pods(self) -> Collection[Body]:
        """The pods as they were when this looked last."""
        return self._pods.values()

    def table(self, mixture: str) -> Body | None:
        """Return the spec of the table that the routers of a mixture have."""
        return next((t["spec"] for t in self._tables if t["spec"]["mixture"] == mixture), None)

    async def _follow(self, deployment: Body) -> None:
        name = str(metadata(deployment)["name"])
        own = [pod for pod in self._pods.values() if labels_of(pod).get(_MADE_BY) == name]
        wanted = deployment["spec"]["replicas"]
        for _ in range(wanted - len(own)):
            await self._start(deployment)
        for pod in own[wanted:]:
            await self.api.delete(POD, pod)
        ready = sum(_ready(pod) for pod in own[:wanted])
        status = {"replicas": len(own), "readyReplicas": ready}
        before = deployment.get("status") or {}
        if {k: before.get(k, 0) for k in status} != status:
            await self.api.merge(DEPLOYMENT, self.namespace, name, {"status": status}, "status")

    async def _start(self, deployment: Body) -> None:
        template, name = deployment["spec"]["template"], metadata(deployment)["name"]
        self._addresses += 1
        pod_name = f"{name}-{self._addresses}"
        address = f"{self.subnet}.{self._addresses // 250}.{self._addresses % 250}"
        meta = {
            **template["metadata"],
            "name": pod_name,
            "namespace": self.namespace,
            "labels": {**template["metadata"]["labels"], _MADE_BY: name},
        }
        spec = template["spec"] | ({"nodeName": self.node} if self.node else {})
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}
        await self.api.create(POD, body)
        held_up = {*self.refused, *self.stuck}
        ready = "False" if sha256_of(body) in held_up else "True"
        status = {
            "phase": "Running",
            "podIP": address,
            "podIPs": [{"ip": address}],
            "conditions": [{"type": "Ready", "status": ready}],
        }
        patch = {"status": status}
        await self.api.merge(POD, self.namespace, pod_name, patch, "status")

    async def router(
        self, address: str, digests: tuple[str, ...], watched: tuple[str, ...]
    ) -> RouterReport:
        self.asked += 1
        pod = self._at(address)
        mixture = labels_of(pod)["moeops.dev/mixture"]
        table = next((t for t in self._tables if t["spec"]["mixture"] == mixture), None)
        return RouterReport(
            pod="",
            incarnation=str(metadata(pod)["uid"]),
            at=datetime.fromtimestamp(0, UTC),
            table_uid="" if table is None else str(metadata(table)["uid"]),
            epoch=0 if table is None else table["spec"]["epoch"],
            latency_bounds_us=_BOUNDS_US,
            workers=(links := self._links(mixture)),
            versions={sha256: self.counters.get(sha256, Counters()) for sha256 in digests},
            gates=_loaded(table) if table is not None else {},
            loads=self._loads(links),
            tallies={sha256: self.chosen[sha256] for sha256 in watched if sha256 in self.chosen},
            attended={sha256: self.counters.get(sha256, Counters()) for sha256 in watched},
        )

    def _loads(self, links: Mapping[str, tuple[str, ...]]) -> dict[str, WorkerLoad]:
        """Let the workers share what they have to bear since they were asked last."""
        now = self.clock()
        passed_s, self._worked_at = now - self._worked_at, now
        for sha256, names in links.items():
            share = min(1.0, self.busy.get(sha256, 0.0) / len(names))
            for name in names:
                self._worked_s[name] = self._worked_s.get(name, 0.0) + share * passed_s
        named = (name for names in links.values() for name in names)
        return {n: WorkerLoad("i", busy_us=int(1e6 * self._worked_s[n])) for n in named}

    async def worker(self, address: str) -> tuple[WorkerReport, ...]:
        sha256 = sha256_of(self._at(address))
        said = self.refused.get(sha256)
        return (WorkerReport("", sha256, "Refused" if said else "Serving", said or ""),)

    async def forget(self, addresses: frozenset[str]) -> None:
        """Nothing is kept open."""

    def count(self, sha256: str, **more: Any) -> None:
        """Let the routers have counted more of a version."""
        known = self.counters.get(sha256, Counters())
        added = {name: getattr(known, name) + value for name, value in more.items()}
        latency = (known.requests + more.get("requests", 0), 0, 0)
        fields: Mapping[str, Any] = {**_fields(known), **added, "latency_counts": latency}
        self.counters[sha256] = Counters(**fields)

    def _links(self, mixture: str) -> dict[str, tuple[str, ...]]:
        links: dict[str, list[str]] = {}
        for name, pod in sorted(self._pods.items()):
            own = labels_of(pod).get("moeops.dev/mixture") == mixture
            if own and sha256_of(pod) and _ready(pod):
                links.setdefault(sha256_of(pod), []).append(name)
        return {sha256: tuple(names) for sha256, names in links.items()}

    def _at(self, address: str) -> Body:
        ip = address.partition(":")[0]
        for pod in self._pods.values():
            if ip not in self.lost and (pod.get("status") or {}).get("podIP") == ip:
                return pod
        raise Unanswered(address)


def _loaded(table: Body) -> dict[str, GateLoading]:
    """Routers here load at once what the table names."""
    rows = table["spec"]["gates"]
    named = (row.get(place) for row in rows for place in ("stable", "candidate", "previous"))
    return {variant["sha256"]: GateLoading(Loading.LOADED) for variant in named if variant}


def sha256_of(pod: Body) -> str:
    return str((metadata(pod).get("annotations") or {}).get("moeops.dev/sha256", ""))


def _ready(pod: Body) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _fields(counters: Counters) -> dict[str, Any]:
    return {name: getattr(counters, name) for name in Counters.__dataclass_fields__}
