"""The operator dies after each single write of a story; what it comes to is the same.

Its memory of evidence is lost each time, so that a step may take longer; the table's content, the
pods and the conditions at the end, and how often the table was written, are those of the
undisturbed run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from moe_core.rows import ExpertRow, GateRow
from tests.operator.plan.bodies import evaluated, expert, gate, mixture, override, restore, sha
from tests.operator.plan.simulation import Behaviour, Simulation


def fresh() -> Simulation:
    sim = Simulation()
    sim.put("Mixture", mixture(routers={"replicas": 1}))
    sim.put("Expert", expert("e0"))
    sim.put("Gate", gate(["e0"]))
    return sim


def promote(sim: Simulation) -> None:
    sim.run(6)
    sim.want("e0", "v2")
    sim.run(24)


def take_back(sim: Simulation) -> None:
    sim.run(6)
    sim.behaviours[sha("e0", "v2")] = Behaviour(nonfinite=True)
    sim.want("e0", "v2")
    sim.run(20)


def return_by_override(sim: Simulation) -> None:
    promote(sim)
    sim.put("Override", override("back", "e0", "Serve", version="v1", insteadOf="v2"))
    sim.run(16)


def abort_and_retry(sim: Simulation) -> None:
    sim.run(6)
    sim.want("e0", "v2")
    sim.run(4)
    sim.put("Override", override("stop", "e0", "Abort", revision=2))
    sim.run(4)
    sim.put("Override", override("again", "e0", "Retry", revision=2))
    sim.run(24)


def golden_set_passes(sim: Simulation) -> None:
    sim.put("Mixture", mixture(routers={"replicas": 1}, **evaluated()))
    sim.broken_evaluations = 1
    promote(sim)
    sim.run(20)


def golden_set_objects(sim: Simulation) -> None:
    sim.put("Mixture", mixture(routers={"replicas": 1}, **evaluated()))
    sim.behaviours[sha("e0", "v2")] = Behaviour(golden=(0.5, 0.01))
    promote(sim)


def bring_back_an_epoch(sim: Simulation) -> None:
    sim.run(6)
    epoch = min(kept.epoch for kept in sim.snapshots.values())
    sim.want("e0", "v2")
    sim.run(24)
    sim.put("Gate", gate(["e0"], "g2"))
    sim.run(2)
    sim.put("Override", restore(epoch, e0="v2", gate="g2"))
    sim.run(10)
    sim.remove("Override", "back")
    sim.run(24)


STORIES = (
    promote,
    take_back,
    return_by_override,
    abort_and_retry,
    golden_set_passes,
    golden_set_objects,
    bring_back_an_epoch,
)


def essence(sim: Simulation) -> Mapping[str, Any]:
    """Return what a run came to, without times, epochs and what is drawn from them."""
    assert sim.stored is not None
    conditions = {
        name: [(c["type"], c["status"], c["reason"]) for c in body["status"]["conditions"]]
        for (kind, name), body in sim.bodies.items()
        if kind != "Override"
    }
    states = {
        name: body["status"]["state"]
        for (kind, name), body in sim.bodies.items()
        if kind == "Override"
    }
    return {
        "experts": [_row(row) for row in sim.stored.table.experts],
        "gates": [_gate(row) for row in sim.stored.table.gates],
        "epoch": sim.stored.table.epoch,
        "deployments": {name: d.replicas for name, d in sim.deployments.items()},
        "revisions": sorted(sim.revisions),
        "evaluators": sorted(sim.evaluators),
        "history": ended(sim.bodies["Expert", "e0"]["status"]["history"]),
        "epochs": {k.epoch: (k.experts, k.gates) for k in sim.snapshots.values()},
        "conditions": conditions,
        "states": states,
    }


def ended(history: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """Return how rollouts ended, and by whom."""
    return [(e["revision"], e["version"], e["outcome"], e.get("by")) for e in history]


def made(sim: Simulation) -> Counter[str]:
    """Return what was made and deleted, and how often."""
    return Counter(w for w in sim.writes if w.startswith(("revision", "delete")))


def _row(row: ExpertRow) -> tuple[Any, ...]:
    rollout = row.rollout
    assert rollout is not None
    percents = [weight.percent for weight in rollout.weights]
    ended = (rollout.revision, rollout.target, rollout.step, rollout.outcome, percents)
    assert bool(rollout.evaluated) <= bool(percents), "what passed has had weight"
    return (row.stable, row.candidate, row.previous, row.revoked, ended)


def _gate(row: GateRow) -> tuple[Any, ...]:
    rollout = row.rollout
    percents = [weight.percent for weight in rollout.weights] if rollout else []
    ended = (rollout.revision, rollout.target, rollout.outcome, percents) if rollout else ()
    return (row.layers, row.stable, row.candidate, row.previous, row.revoked, ended)


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
def test_a_death_after_any_write_changes_nothing_in_the_end(
    story: Callable[[Simulation], None],
) -> None:
    undisturbed = fresh()
    story(undisturbed)
    expected, tables = essence(undisturbed), undisturbed.writes.count("table")
    assert len(undisturbed.writes) > 20
    for write in range(len(undisturbed.writes)):
        sim = fresh()
        sim.die_after = write
        story(sim)
        sim.run(6)
        died = f"death before write {write}, {undisturbed.writes[write]}"
        assert sim.die_after is None, f"{died}, took no effect"
        assert essence(sim) == expected, died
        assert sim.writes.count("table") == tables, died
        assert made(sim) == made(undisturbed), died
