"""Gates that accept some versions, few rollouts at once, and people who change all of it.

Random stories; each table is checked for pairs that do not fit, and for rollouts that began while
others should have kept them waiting.
"""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moe_operator.fit import on_trial, together
from tests.operator.plan.bodies import expert, gate, mixture, override, steps
from tests.operator.plan.looks import stable
from tests.operator.plan.simulation import Simulation

NAMES = ("e0", "e1", "e2")
VERSIONS = ("v1", "v2")
LIMIT = 2

Act = tuple[Any, ...]
ACTS = st.one_of(
    st.tuples(st.just("passes"), st.integers(1, 6)),
    st.tuples(st.just("wants"), st.sampled_from(NAMES), st.sampled_from(VERSIONS)),
    st.tuples(
        st.just("accepts"),
        st.integers(1, 3),
        st.dictionaries(
            st.sampled_from(NAMES), st.sets(st.sampled_from(VERSIONS), min_size=1), max_size=2
        ),
    ),
    st.tuples(st.just("serves"), st.sampled_from(NAMES), st.sampled_from(VERSIONS)),
    st.tuples(st.just("forgets"), st.just("")),
    st.tuples(st.just("dies"), st.integers(0, 6)),
)


def happens(sim: Simulation, act: Act) -> None:
    match act:
        case ("passes", seconds):
            sim.run(seconds)
        case ("wants", name, version):
            sim.want(name, version)
        case ("accepts", number, versions):
            put_gate(sim, f"g{number}", versions)
        case ("serves", name, version):
            other = "v1" if version == "v2" else "v2"
            serve = override(f"o-{name}", name, "Serve", version=version, insteadOf=other)
            sim.put("Override", serve)
        case ("forgets", _):
            for kind, name in [key for key in sim.bodies if key[0] == "Override"]:
                sim.remove(kind, name)
        case ("dies", writes):
            sim.die_after = len(sim.writes) + writes


def put_gate(sim: Simulation, version: str, accepts: dict[str, set[str]]) -> None:
    body = gate(NAMES, version)
    body["spec"]["experts"] = [
        {"id": name, "versions": sorted(accepts.get(name, ()))} for name in NAMES
    ]
    sim.put("Gate", {**sim.bodies.get(("Gate", "gate"), {}), **body})


def few_at_once(sim: Simulation) -> None:
    """No more rollouts than may be, and none beside that of its backup.

    What is tried out with a gate is one rollout with it.
    """
    assert sim.stored is not None
    (one,) = sim.stored.table.gates
    rows = [row for row in sim.stored.table.experts if not together(one, row)]
    trials = {row.expert_id: row for row in rows if on_trial(row)}
    assert len(trials) <= LIMIT
    assert not {"e0", "e1"} <= trials.keys(), "e1 is the backup of e0"


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
@given(st.lists(ACTS, min_size=3, max_size=14))
def test_pairs_always_fit_and_everything_comes_to_rest(story: list[Act]) -> None:
    sim = Simulation(traffic=4)
    sim.put("Mixture", mixture(routers={"replicas": 1}, rollouts={"maxConcurrent": LIMIT}))
    rollout = {"steps": steps(50, pause=1), "minRequests": 1, "scaleDownDelaySeconds": 2}
    for name, backup in zip(NAMES, ("e1", "", ""), strict=True):
        sim.put("Expert", expert(name, rollout=rollout, backupExpertId=backup))
    put_gate(sim, "g1", {})
    sim.run(7)
    for act in story:
        happens(sim, act)
        sim.tick()
        few_at_once(sim)
    sim.die_after = None
    happens(sim, ("forgets", ""))
    put_gate(sim, "last", {})
    sim.run(45)
    for name in NAMES:
        assert stable(sim, name) == sim.bodies["Expert", name]["spec"]["version"]
    assert sim.stored is not None
    assert sim.stored.table.gates[0].stable.version == "last"
    written = len(sim.writes)
    sim.run(5)
    assert sim.writes[written:] == []
