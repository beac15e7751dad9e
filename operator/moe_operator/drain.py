"""What a drain of a node may take at once, and what comes in its place first.

`kubectl drain` cordons a node, then asks for its pods to be evicted for as long as their budgets
refuse. Of several pods one may be away at a time. The only one may not: while its node is cordoned
its Deployment has one more, and when that is ready the budget is content. Where nothing comes up in
the place of what went, for want of room or of a quota, a drain is let through after as long as pods
may take to come up. It writes nothing and knows no clock.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from typing import Any, Final, Self

from moe_operator import labels
from moe_operator.world import DeploymentSeen, NodeSeen, PodSeen, World

Group = tuple[str, str, str]  # component, name of the Expert object, first digits of the sha256
ROUTERS: Final[Group] = (labels.ROUTER, "", "")


class Budget(Enum):
    """What evictions may take, in the terms of a PodDisruptionBudget."""

    LAST_STAYS = ("minAvailable", 1)
    ONE_AWAY = ("maxUnavailable", 1)
    ALL_GO = ("maxUnavailable", "100%")

    @property
    def spec(self) -> Mapping[str, Any]:
        name, value = self.value
        return {name: value}


@dataclass(frozen=True, slots=True)
class Guard:
    """The budget of one Deployment; where a drain is held up, who and when it is let through."""

    budget: Budget
    pod: PodSeen | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Drain:
    """The pods of a mixture that are to stay as they are, and the nodes that are about to go.

    `sees_nodes` is False where nodes may not be read: then nothing can come first, and nothing is
    held up for it.
    """

    now: datetime
    pods: Mapping[Group, list[PodSeen]] = field(default_factory=dict)
    cordoned: Mapping[str, NodeSeen] = field(default_factory=dict)
    sees_nodes: bool = False

    @classmethod
    def of(cls, world: World, now: datetime) -> Self:
        pods: defaultdict[Group, list[PodSeen]] = defaultdict(list)
        for pod in world.pods:
            if not (pod.deleting or pod.over or pod.component == labels.EVALUATOR):
                pods[pod.component, pod.expert, pod.digest].append(pod)
        cordoned = {node.name: node for node in world.nodes if node.cordoned}
        return cls(now, pods, cordoned, bool(world.nodes))

    def leaving(self, group: Group) -> PodSeen | None:
        """Return a pod of these that is on a cordoned node, if there is one."""
        return next((pod for pod in self.pods.get(group, ()) if pod.node in self.cordoned), None)

    def surge(self, group: Group, replicas: int) -> int:
        """Return how many pods more than `replicas` there are to be for now."""
        return int(replicas == 1 and self.leaving(group) is not None)

    def guard(self, group: Group, replicas: int, comes_up_s: int, surges: bool) -> Guard:
        """Return what may be taken of these; `surges` says that the only one can be replaced."""
        # One of none is as of one: what is woken and put to sleep again needs no other budget.
        last_stays = replicas <= 1 and surges and self.sees_nodes
        budget = Budget.LAST_STAYS if last_stays else Budget.ONE_AWAY
        pod, own = self.leaving(group), self.pods.get(group, [])
        ready = sum(pod.ready for pod in own)
        if pod is None or replicas == 0 or ready > (1 if last_stays else replicas - 1):
            return Guard(budget, pod)
        since = self.cordoned[pod.node].cordoned_since
        if since is None:  # stamped a moment after it was cordoned
            return Guard(budget, pod)
        latest = max(since, *(one.created for one in own))
        until = latest + timedelta(seconds=comes_up_s)
        return Guard(Budget.ALL_GO, pod) if until <= self.now else Guard(budget, pod, until)


def group_of(deployment: DeploymentSeen) -> Group:
    return deployment.component, deployment.expert, deployment.digest
