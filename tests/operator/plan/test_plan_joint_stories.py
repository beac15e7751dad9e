"""Random stories of gates and versions that fit only each other, of people, faults and deaths.

Each table of a story is checked (see `invariants`): no session is on a pair that does not fit.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.operator.plan.bodies import QUICK_GATE, expert, gate, mixture, override, sha, steps
from tests.operator.plan.looks import row, stable
from tests.operator.plan.simulation import Behaviour, Simulation

NAMES = ("e0", "e1")
# Of which version of a gate which versions of the experts fit.
FITS = {"g1": ["v1"], "g2": ["v2"], "g3": ["v2", "v3"], "last": ["v4"]}
# The gates of layers 0 and 1; where there is one, it is of both.
GATES = ("gate", "other")
TARGETS = (*(("Gate", name) for name in GATES), ("Expert", "e0"), ("Expert", "e1"))

Act = tuple[Any, ...]
ACTS = st.one_of(
    st.tuples(st.just("passes"), st.integers(1, 8)),
    st.tuples(st.just("gate"), st.sampled_from(GATES), st.sampled_from(["g1", "g2", "g3"])),
    st.tuples(st.just("all gates"), st.sampled_from(["g1", "g2", "g3"])),
    st.tuples(st.just("wants"), st.sampled_from(NAMES), st.sampled_from(["v1", "v2", "v3"])),
    st.tuples(st.just("wants all"), st.sampled_from(["v1", "v2", "v3"])),
    st.tuples(
        st.just("asks"),
        st.sampled_from(TARGETS),
        st.sampled_from(["Abort", "Promote", "Retry", "Pause", "Serve"]),
        st.sampled_from(["g1", "g2", "v1", "v2"]),
    ),
    st.tuples(st.just("forgets"), st.just("")),
    st.tuples(st.just("breaks"), st.sampled_from(NAMES), st.booleans()),
    st.tuples(st.just("no room"), st.booleans()),
    st.tuples(st.just("dies"), st.integers(0, 6)),
)


def gates_of(sim: Simulation) -> tuple[str, ...]:
    return tuple(name for kind, name in sim.bodies if kind == "Gate")


def put_gate(sim: Simulation, name: str, version: str, layers: list[int]) -> None:
    rollout = {**QUICK_GATE, "steps": steps(30, 60, pause=1), "minRequests": 6}
    body = gate(NAMES, version, name=name, rollout=rollout, layers=layers)
    body["spec"]["experts"] = [{"id": name, "versions": FITS[version]} for name in NAMES]
    sim.put("Gate", {**sim.bodies.get(("Gate", name), {}), **body})


def want_gate(sim: Simulation, name: str, version: str) -> None:
    put_gate(sim, name, version, sim.bodies["Gate", name]["spec"]["layers"])


def asked(sim: Simulation, kind: str, name: str, action: str, version: str) -> None:
    """Put an Override as a person would who sees what is there now."""
    body = sim.bodies[kind, name]
    rollout = body.get("status", {}).get("rollout", {})
    more: dict[str, Any] = {"revision": rollout.get("revision", 1)}
    if action in ("Pause", "Serve"):
        more = {"insteadOf": body["spec"]["version"]}
    if action == "Serve":
        more["version"] = version
    sim.put("Override", override(f"{action.lower()}-{name}", name, action, kind=kind, **more))


def happens(sim: Simulation, act: Act) -> None:
    match act:
        case ("passes", seconds):
            sim.run(seconds)
        case ("gate", name, version) if name in gates_of(sim):
            want_gate(sim, name, version)
        case ("all gates", version):
            for name in gates_of(sim):
                want_gate(sim, name, version)
        case ("wants", name, version):
            sim.want(name, version)
        case ("wants all", version):
            for name in NAMES:
                sim.want(name, version)
        case ("asks", (kind, name), action, version) if (kind, name) in sim.bodies:
            asked(sim, kind, name, action, version)
        case ("forgets", _):
            for kind, name in [key for key in sim.bodies if key[0] == "Override"]:
                sim.remove(kind, name)
        case ("breaks", name, broken):
            sim.behaviours[sha(name, "v2")] = Behaviour(nonfinite=broken)
        case ("no room", full):
            sim.full = {"n1"} if full else set()
        case ("dies", writes):
            sim.die_after = len(sim.writes) + writes


@pytest.mark.parametrize("gates", [GATES[:1], GATES])
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
@given(st.lists(ACTS, min_size=4, max_size=16))
def test_no_session_is_on_a_pair_that_does_not_fit_and_all_comes_to_rest(
    gates: tuple[str, ...], story: list[Act]
) -> None:
    sim = Simulation(traffic=6)
    sim.put("Mixture", mixture(routers={"replicas": 1}))
    rollout = {"steps": steps(50, pause=1), "minRequests": 1, "scaleDownDelaySeconds": 2}
    for name in NAMES:
        sim.put("Expert", expert(name, replicas=2, rollout=rollout))
    for layer, name in enumerate(gates):
        put_gate(sim, name, "g1", [layer] if len(gates) > 1 else [0, 1])
    sim.run(7)
    for act in (("all gates", "g2"), ("wants all", "v2"), ("passes", 4), *story):
        happens(sim, act)
        sim.tick()
    sim.die_after = None
    for act in (("forgets", ""), ("no room", False), ("all gates", "last"), ("wants all", "v4")):
        happens(sim, act)
    sim.run(45)
    assert sim.stored is not None
    assert {one.stable.version for one in sim.stored.table.gates} == {"last"}
    assert {stable(sim, name) for name in NAMES} == {"v4"}
    assert {one.previous for one in sim.stored.table.gates} == {None}
    assert {row(sim, name).previous for name in NAMES} == {None}
    written = len(sim.writes)
    sim.run(5)
    assert sim.writes[written:] == []
