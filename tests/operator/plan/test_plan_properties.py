"""Whatever people, pods, routers and the operator's own deaths do, every table stays legal.

Random stories run through the simulation, which checks each pass; at the end all is well again,
and the mixture must come to rest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moe_core.rollout import Outcome
from tests.operator.plan.bodies import (
    evaluated,
    expert,
    gate,
    meta,
    mixture,
    override,
    restore,
    sha,
    versioned,
)
from tests.operator.plan.simulation import Behaviour, Simulation

NAMES = st.sampled_from(("e0", "e1"))
VERSIONS = st.sampled_from(("v1", "v2", "v3"))
GATED = st.sampled_from((("e0",), ("e1",), ("e0", "e1"), ("e1", "e0")))
BEHAVIOURS = st.sampled_from(
    (
        Behaviour(nonfinite=True),
        Behaviour(fails=True),
        Behaviour(starts=False),
        Behaviour(refused="digest"),
        Behaviour(golden=(0.5, 0.01)),
        Behaviour(),
    )
)


@dataclass(frozen=True, slots=True)
class Act:
    """One thing that happens; its fields are what it is called with."""

    does: Callable[..., None]
    values: tuple[Any, ...]

    def __call__(self, sim: Simulation) -> None:
        self.does(sim, *self.values)

    def __repr__(self) -> str:
        return f"{self.does.__name__}{self.values}"


def passes(sim: Simulation, seconds: int) -> None:
    sim.run(seconds)


def wants(sim: Simulation, name: str, version: str) -> None:
    sim.want(name, version)


def scales(sim: Simulation, name: str, replicas: int) -> None:
    sim.change(name, replicas=replicas)


def behaves(sim: Simulation, name: str, version: str, behaviour: Behaviour) -> None:
    sim.behaviours[sha(name, version)] = behaviour


def decides(sim: Simulation, name: str, action: str, version: str, other: str) -> None:
    """Decide about what is there now; sometimes about what is not."""
    assert sim.stored is not None
    found = sim.stored.table.expert(name)
    revision = found.rollout.revision if found and found.rollout else 1
    spec: dict[str, Any] = {"revision": revision}
    if action in ("Serve", "Pause"):
        spec = {"version": version, "insteadOf": other}
    sim.put("Override", override(f"{name}-{len(sim.writes)}", name, action, **spec))


def brings_back(sim: Simulation, place: int, version: str, other: str) -> None:
    """Decide for an epoch that is kept; sometimes for specs that are not the ones there are."""
    epochs = sorted(kept.epoch for kept in sim.snapshots.values())
    chosen = epochs[place % len(epochs)] if epochs else 1
    body = restore(chosen, e0=version, e1=other, gate="g1")
    sim.put("Override", {**body, "metadata": meta(f"epoch-{len(sim.writes)}")})


def forgets_overrides(sim: Simulation) -> None:
    for kind, name in list(sim.bodies):
        if kind == "Override":
            sim.remove(kind, name)


def dies(sim: Simulation, writes: int) -> None:
    sim.die_after = len(sim.writes) + writes


def restarts(sim: Simulation) -> None:
    sim.kill_operator()


def loses_pods(sim: Simulation, name: str, version: str) -> None:
    sim.kill_pods(sha(name, version))


def loses_status(sim: Simulation) -> None:
    sim.wipe_status()


def is_evaluated(sim: Simulation, failures: int) -> None:
    """Ask for a golden set from now on; some evaluators fail at first."""
    sim.broken_evaluations = failures
    sim.put("Mixture", mixture(routers={"replicas": 1}, **evaluated()))


def loses_evaluators(sim: Simulation) -> None:
    sim.evaluators.clear()


def lags(sim: Simulation, lagging: bool) -> None:
    sim.lagging = lagging


def changes_gate(sim: Simulation, version: str, names: tuple[str, ...]) -> None:
    """Give the gate another version, and with it another list of experts."""
    body = gate(list(names), version)
    known = sim.bodies["Gate", "gate"]
    meta = {**known["metadata"], "generation": known["metadata"]["generation"] + 1}
    sim.put("Gate", {**known, "metadata": meta, "spec": body["spec"]})


def forgets_one(sim: Simulation, name: str) -> None:
    """Delete the oldest Override of an expert."""
    own = (n for kind, n in sim.bodies if kind == "Override" and n.startswith(f"{name}-"))
    oldest = next(own, None)
    if oldest is not None:
        sim.remove("Override", oldest)


def is_made_again(sim: Simulation, name: str, version: str) -> None:
    sim.remove("Expert", name)
    body = expert(name, version)
    body["metadata"]["uid"] = f"uid-{name}-{len(sim.writes)}"
    sim.put("Expert", body)


def act(does: Callable[..., None], *values: st.SearchStrategy[Any]) -> st.SearchStrategy[Act]:
    return st.tuples(*values).map(lambda drawn: Act(does, drawn))


ACTIONS = st.sampled_from(("Serve", "Pause", "Promote", "Abort", "Retry"))
ACTS = st.one_of(
    act(passes, st.integers(1, 6)),
    act(passes, st.integers(1, 6)),
    act(wants, NAMES, VERSIONS),
    act(wants, NAMES, VERSIONS),
    act(scales, NAMES, st.integers(0, 3)),
    act(behaves, NAMES, VERSIONS, BEHAVIOURS),
    act(decides, NAMES, ACTIONS, VERSIONS, VERSIONS),
    act(brings_back, st.integers(0, 9), VERSIONS, VERSIONS),
    act(forgets_overrides),
    act(forgets_one, NAMES),
    act(changes_gate, st.sampled_from(("g1", "g2", "g3")), GATED),
    act(passes, st.integers(15, 40)),
    act(dies, st.integers(0, 8)),
    act(restarts),
    act(loses_pods, NAMES, VERSIONS),
    act(loses_status),
    act(lags, st.booleans()),
    act(is_evaluated, st.integers(0, 1)),
    act(loses_evaluators),
    act(is_made_again, NAMES, VERSIONS),
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
@given(st.lists(ACTS, min_size=3, max_size=14))
def test_every_story_is_legal_and_comes_to_rest(story: list[Act]) -> None:
    sim = Simulation(traffic=4)
    sim.put("Mixture", mixture(routers={"replicas": 1}))
    for name in ("e0", "e1"):
        sim.put("Expert", expert(name, rollout={"minRequests": 1}))
    sim.put("Gate", gate(["e0", "e1"]))
    sim.run(6)
    for happens in story:
        happens(sim)
        sim.tick()
    recover(sim)
    written = len(sim.writes)
    sim.run(8)
    assert sim.writes[written:] == [], "nothing is written when nothing changes"
    for name in ("e0", "e1"):
        rests_as_wanted(sim, name)


def recover(sim: Simulation) -> None:
    """Let all that hinders be over, and time pass."""
    sim.behaviours.clear()
    sim.lagging, sim.die_after = False, None
    forgets_overrides(sim)
    for name in ("e0", "e1"):
        sim.change(name, replicas=1)
    sim.run(60)


def rests_as_wanted(sim: Simulation, name: str) -> None:
    """The version of the spec is served, or its revision has failed and says so."""
    assert sim.stored is not None
    row = sim.stored.table.expert(name)
    assert row is not None
    assert row.rollout is not None
    assert row.stable is not None
    assert (row.candidate, row.previous) == (None, None)
    wanted = sim.bodies["Expert", name]["spec"]["version"]
    if row.stable.version != wanted:
        assert row.rollout.target.version == wanted
        assert row.rollout.outcome in (Outcome.ROLLED_BACK, Outcome.ABORTED)
        assert row.rollout.reason
    pods = {
        d.sha256: d.replicas
        for d in sim.deployments.values()
        if d.labels.get("moeops.dev/expert") == name
    }
    listed = any(name in gate.experts for gate in sim.stored.table.gates)
    assert bool(row.idle_since) <= (not listed)
    assert pods == {sha(name, row.stable.version): 0 if row.idle_since else 1}
    assert sim.evaluators == {}
    assert versioned(name, row.stable.version)["artifact"]["sha256"] == row.stable.sha256
