"""Which pod to give up, so that pods that fled to one node are on different ones again.

Anti-affinity acts only where a pod is placed: when a lost node is back, all replicas are still
where they fled to, and the next loss would take them all. One pod of a mixture at a time is given
up, only while everything of the mixture is whole; its Deployment makes another one, which the
scheduler places. It writes nothing and knows no clock.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from moe_core.table import Table
from moe_operator import labels
from moe_operator.intent import Delete, Note
from moe_operator.reach import Reach
from moe_operator.world import DeploymentSeen, NodeSeen, PodSeen, World

# A node that has just come back may go again.
_NODE_SETTLES: Final = timedelta(seconds=10)
_SHORTEST: Final = timedelta(seconds=60)
_LONGEST: Final = timedelta(hours=6)

Group = tuple[str, str, str]  # component, name of the Expert object, first digits of the sha256


@dataclass(frozen=True, slots=True)
class Move:
    """A pod to give up and what to tell of it, or when time alone may make it so."""

    deletes: tuple[Delete, ...] = ()
    notes: tuple[Note, ...] = ()
    again_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class _Option:
    """A pod that could be elsewhere: there is `free`, which has none of its kind."""

    due: datetime
    pod: PodSeen
    together: int
    free: NodeSeen


def spread(world: World, table: Table, reach: Reach) -> Move:
    """Return what restores the spread of a mixture whose table `table` is, and stays."""
    held = _pods(world)
    if len(world.nodes) < 2 or not _whole(world, table, reach, held):
        return Move()
    trials = {row.name for row in table.experts if row.rollout and not row.rollout.outcome.ended}
    options = [
        option
        for (component, expert, digest), pods in held.items()
        if expert not in trials
        for option in _options(pods, world.nodes)
    ]
    if not options:
        return Move()
    first = min(options, key=lambda option: (option.due, option.pod.name))
    if first.due > reach.now:
        return Move(again_at=first.due)
    return Move((_delete(first.pod),), (_note(world, first),))


def _pods(world: World) -> Mapping[Group, list[PodSeen]]:
    """Return the pods that are to stay, by what they serve."""
    held: defaultdict[Group, list[PodSeen]] = defaultdict(list)
    for pod in world.pods:
        if not (pod.deleting or pod.over or pod.component == labels.EVALUATOR):
            held[pod.component, pod.expert, pod.digest].append(pod)
    return held


def _whole(world: World, table: Table, reach: Reach, held: Mapping[Group, list[PodSeen]]) -> bool:
    """Return whether no pod is missing anywhere, and routers reach all of them.

    A worker that is ready is not yet routable, and what was given up a moment ago is missing.
    """
    linked = {
        (labels.WORKER, row.name, labels.short(version.sha256)): reach.workers(version.sha256)
        for row in table.experts
        for version in row.named
    }
    for deployment in world.deployments:
        group = deployment.component, deployment.expert, deployment.digest
        if not _complete(deployment, held.get(group, [])):
            return False
        if linked.get(group, deployment.replicas) < deployment.replicas:
            return False
    return reach.acknowledged(table.epoch)


def _complete(deployment: DeploymentSeen, pods: list[PodSeen]) -> bool:
    wanted = deployment.replicas
    ready = sum(pod.ready for pod in pods)
    return wanted == len(pods) == ready == deployment.ready_replicas


def _options(pods: list[PodSeen], nodes: Iterable[NodeSeen]) -> Iterator[_Option]:
    """Give the youngest pod of the fullest node, for each node where it could be alone."""
    counts = Counter(pod.node for pod in pods)
    node, together = max(counts.items(), key=lambda item: (item[1], item[0]))
    if together < 2:
        return
    pod = max((p for p in pods if p.node == node), key=lambda p: (p.created, p.name))
    youngest = max(p.created for p in pods)
    for free in nodes:
        if free.name not in counts and _takes(free, pod) and free.ready_since is not None:
            yield _Option(_due(youngest, free.ready_since), pod, together, free)


def _takes(node: NodeSeen, pod: PodSeen) -> bool:
    selected = all(node.labels.get(name) == value for name, value in pod.node_selector.items())
    return node.ready and node.schedulable and selected


def _due(youngest: datetime, ready_since: datetime) -> datetime:
    """Return when another pod may be given up for a node.

    A pod that was placed while the node was there, and not on it, says that the scheduler has its
    reasons: each time the wait doubles, measured by the ages of what is there.
    """
    wait = min(max(_SHORTEST, youngest - ready_since), _LONGEST)
    return max(ready_since + _NODE_SETTLES, youngest + wait)


def _delete(pod: PodSeen) -> Delete:
    return Delete("Pod", pod.name, pod.uid, pod.resource_version)


def _note(world: World, option: _Option) -> Note:
    pod = option.pod
    kind, name = ("Expert", pod.expert) if pod.expert else ("Mixture", world.name)
    message = (
        f"{pod.name} is moved: {option.together} replicas were on {pod.node} "
        f"while {option.free.name} had none"
    )
    return Note(kind, name, False, "Moved", message)
