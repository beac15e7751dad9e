"""The PodDisruptionBudgets of a mixture, one for each Deployment that is there, and what is told.

A budget is owned by its Deployment, and goes with it. What it allows is decided in `drain`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime

from moe_operator.drain import Budget, Drain, Guard, group_of
from moe_operator.guards import disruption_budget
from moe_operator.intent import Manifest, Note
from moe_operator.readings import Readings
from moe_operator.render import ROUTERS_COME_UP_S
from moe_operator.spec import MixtureSpec
from moe_operator.world import DeploymentSeen, World


@dataclass(frozen=True, slots=True)
class Budgets:
    """All budgets, what to tell of a drain, and when time alone changes one."""

    manifests: tuple[Manifest, ...]
    notes: tuple[Note, ...]
    again_at: datetime | None


def budgets(
    world: World, mixture: MixtureSpec, drain: Drain, managed: Collection[str], known: Readings
) -> Budgets:
    """Return the budgets of what is there; `managed` are the Deployments that are kept in size."""
    comes_up_s = {e.meta.name: e.rollout.progress_deadline_s for e in world.experts}
    manifests, notes, times = [], list[Note](), []
    for deployment in world.deployments:
        group, surges = group_of(deployment), deployment.name in managed
        seconds = comes_up_s.get(deployment.expert, ROUTERS_COME_UP_S)
        guard = drain.guard(group, deployment.replicas, seconds, surges)
        made = known.made(disruption_budget, (mixture, deployment), (guard.budget,))
        manifests.append(made)
        applied = world.applied.get(("PodDisruptionBudget", deployment.name))
        notes += _told(world, deployment, guard, drain, surges, applied != made.hash)
        times.append(guard.until)
    again_at = min((at for at in times if at is not None), default=None)
    return Budgets(tuple(manifests), tuple(notes), again_at)


def _told(
    world: World,
    deployment: DeploymentSeen,
    guard: Guard,
    drain: Drain,
    surges: bool,
    changed: bool,
) -> Iterator[Note]:
    """Tell of what begins: another pod that comes first, or a drain that is let through."""
    pod, kind, name = guard.pod, "Expert", deployment.expert
    if pod is None:
        return
    if not name:
        kind, name = "Mixture", world.name
    more = drain.surge(group_of(deployment), deployment.replicas)
    if surges and more and not deployment.surge:
        said = f"{pod.name} is the only one, and {pod.node} is cordoned: another one comes first"
        yield Note(kind, name, False, "Draining", said)
    if changed and guard.budget is Budget.ALL_GO:
        said = f"nothing came up in its place in time: {pod.name} on {pod.node} may be evicted"
        yield Note(kind, name, True, "DrainLetThrough", said)
