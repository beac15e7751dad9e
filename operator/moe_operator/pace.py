"""Decides whom to ask how often: soon while something is waited for, seldom when all is well."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from moe_core import identity
from moe_core.table import Table
from moe_operator import tls
from moe_operator.attending import attended
from moe_operator.drifting import watched
from moe_operator.evidence import digests_under_rollout
from moe_operator.labels import EVALUATOR, ROUTER, WORKER, short
from moe_operator.reports import Targets
from moe_operator.template import CONTROL_PORT, ROUTER_PORT
from moe_operator.world import PodSeen, World

_WAITING_S: Final = 0.25  # for an epoch or a link at the routers
_WATCHING_S: Final = 1.0  # a rollout, or pods that come up
_SCALING_S: Final = 2.0  # replicas that follow the load
_IDLE_S: Final = 10.0


def targets(world: World, table: Table | None) -> Targets:
    """Return whom to ask, given what is seen and the table as it stands after the plan."""
    asked = [pod for pod in world.pods if pod.address and not pod.deleting]
    routers = {p.name: _router(world, p) for p in asked if p.component == ROUTER}
    workers = {
        pod.name: _worker(world, pod) for pod in asked if pod.component == WORKER and not pod.ready
    }
    rolling = () if table is None else digests_under_rollout(table)
    digests = tuple(sorted({*rolling, *_sleepers(world, table)}))
    every_s = _every_s(world, table, bool(rolling))
    gates = {of.sha256 for of in watched(world.gates, table)}
    chosen = tuple(sorted(gates | {of.sha256 for of in attended(world.experts, table)}))
    return Targets(routers, workers, digests, every_s, chosen)


def _sleepers(world: World, table: Table | None) -> Iterator[str]:
    """Give the versions that are served by nobody until rows come for them."""
    may_sleep = {e.meta.name for e in world.experts if e.autoscaling and not e.autoscaling.low}
    empty = {(d.expert, d.digest) for d in world.deployments if not d.replicas}
    for row in table.experts if table is not None else ():
        stable = row.stable
        if (
            stable is not None
            and row.name in may_sleep
            and (row.name, short(stable.sha256)) in empty
        ):
            yield stable.sha256


def _router(world: World, pod: PodSeen) -> str:
    if not pod.secure:
        return f"{pod.address}:{ROUTER_PORT}"
    name = identity.routers(world.name, world.namespace)
    return tls.address(name, f"{pod.address}:{tls.ROUTER_TLS_PORT}")


def _worker(world: World, pod: PodSeen) -> str:
    plain = f"{pod.address}:{CONTROL_PORT}"
    if not pod.secure:
        return plain
    return tls.address(identity.workers(world.name, world.namespace), plain)


def _every_s(world: World, table: Table | None, rolling: bool) -> float:
    ready = [pod for pod in world.pods if pod.ready and not pod.deleting]
    routers = {pod.name for pod in ready if pod.component == ROUTER}
    if routers and (_behind(world, table, routers) or _unlinked(world, ready, routers)):
        return _WAITING_S
    kept = [pod for pod in world.pods if pod.component != EVALUATOR and not pod.deleting]
    starting = any(not pod.ready for pod in kept)
    if rolling or starting:
        return _WATCHING_S
    scaling = any(expert.autoscaling is not None for expert in world.experts)
    return _SCALING_S if scaling else _IDLE_S


def _behind(world: World, table: Table | None, routers: set[str]) -> bool:
    """Return whether a router that is ready has not reported the newest epoch."""
    if table is None:
        return False
    current = {
        report.pod
        for report in world.routers
        if report.table_uid == table.uid and report.epoch >= table.epoch
    }
    return not routers <= current


def _unlinked(world: World, ready: list[PodSeen], routers: set[str]) -> bool:
    """Return whether a worker that is ready is not yet offered to a router that is."""
    digests = {pod.digest for pod in ready if pod.component == WORKER}
    return any(
        not digests <= {short(sha256) for sha256 in report.workers}
        for report in world.routers
        if report.pod in routers
    )
