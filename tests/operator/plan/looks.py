"""A mixture that is being served, and short questions about what became of it."""

from __future__ import annotations

from typing import Any

from moe_core.rollout import Outcome
from moe_core.rows import ExpertRow
from tests.operator.plan.bodies import expert, gate, mixture
from tests.operator.plan.simulation import Simulation


def started(**spec: Any) -> Simulation:
    """Return a mixture of two experts and a gate that is being served."""
    sim = Simulation()
    sim.put("Mixture", mixture())
    sim.put("Expert", expert("e0", **spec))
    sim.put("Expert", expert("e1"))
    sim.put("Gate", gate(["e0", "e1"]))
    return sim.run(10)


def row(sim: Simulation, expert_id: str = "e0") -> ExpertRow:
    assert sim.stored is not None
    found = sim.stored.table.expert(expert_id)
    assert found is not None
    return found


def stable(sim: Simulation, expert_id: str = "e0") -> str:
    served = row(sim, expert_id).stable
    return served.version if served else ""


def outcome(sim: Simulation) -> Outcome:
    rollout = row(sim).rollout
    assert rollout is not None
    return rollout.outcome


def condition(sim: Simulation, kind: str, name: str, of: str) -> tuple[str, str, str]:
    conditions = sim.bodies[kind, name]["status"]["conditions"]
    found = next(c for c in conditions if c["type"] == of)
    return found["status"], found["reason"], found["message"]


def progressing(sim: Simulation) -> tuple[str, str, str]:
    return condition(sim, "Expert", "e0", "Progressing")


def until_weight(sim: Simulation, percent: int) -> None:
    """Go on until so many of the new sessions see a candidate."""
    for _ in range(60):
        found = row(sim)
        if found.candidate is not None and found.rollout and found.rollout.weight >= percent:
            return
        sim.tick()
    raise AssertionError(f"no candidate came to {percent}%")


def deployments(sim: Simulation, name: str = "e0") -> dict[str, int]:
    """Return the replicas of an expert's Deployments by digest."""
    return {
        d.sha256: d.replicas
        for d in sim.deployments.values()
        if d.labels.get("moeops.dev/expert") == name
    }
