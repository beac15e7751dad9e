"""The simulated cluster of the planner's tests, with workers that have something to bear."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Final

from moe_core.worker_load import WorkerLoad
from moe_operator.cache import Key
from moe_operator.intent import Plan
from moe_operator.labels import ROUTER
from moe_operator.scalers import Scalers
from moe_operator.world import World
from tests.operator.plan.bodies import MIXTURE, NAMESPACE, expert, gate, mixture
from tests.operator.plan.simulation import Simulation

KEY: Final = Key(NAMESPACE, MIXTURE)
TARGET: Final[dict[str, Any]] = {
    "minReplicas": 1,
    "maxReplicas": 5,
    "targetUtilizationPercent": 50,
    "stabilizationWindowSeconds": {"up": 0, "down": 20},
    "panicWindowSeconds": 5,
}


@dataclass(slots=True)
class Cluster(Simulation):
    """`busy` are the workers of an expert, by name, that would compute all the time."""

    busy: dict[str, float] = field(default_factory=dict)
    scalers: Scalers = field(default_factory=Scalers)
    _spent_s: dict[str, float] = field(default_factory=dict)  # by pod

    def kill_operator(self) -> None:
        Simulation.kill_operator(self)
        self.scalers = Scalers()

    def tick(self) -> None:
        """One second of work, of which routers tell, then one as ever."""
        for name, busy in self.busy.items():
            own = [p for p in self.pods.values() if self._expert(p.deployment) == name and p.ready]
            for pod in own:
                share = min(1.0, busy / len(own))
                self._spent_s[pod.name] = self._spent_s.get(pod.name, 0.0) + share
        self.scalers.hear(KEY, self.world().routers, self.now)
        Simulation.tick(self)

    def look(self) -> Plan:
        plan = Simulation.look(self)
        self.scalers.follow(KEY, plan.sizes)
        return plan

    def world(self) -> World:
        world = Simulation.world(self)
        loads = {p.name: self._load(p.name) for p in world.pods if p.component != ROUTER}
        routers = tuple(replace(report, loads=loads) for report in world.routers)
        return replace(world, routers=routers, histories=self.scalers.histories(KEY))

    def _load(self, pod: str) -> WorkerLoad:
        return WorkerLoad("i", busy_us=int(1e6 * self._spent_s.get(pod, 0.0)))

    def _expert(self, deployment: str) -> str:
        return self.deployments[deployment].labels.get("moeops.dev/expert", "")


def scaled(**spec: Any) -> Cluster:
    """Return a mixture that is served, one of whose experts follows its load."""
    cluster = Cluster()
    cluster.put("Mixture", mixture())
    cluster.put("Expert", expert("e0", **{"autoscaling": TARGET, **spec}))
    cluster.put("Expert", expert("e1"))
    cluster.put("Gate", gate(["e0", "e1"]))
    cluster.run(10)
    return cluster
