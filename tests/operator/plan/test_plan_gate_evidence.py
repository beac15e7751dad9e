"""More evidence on gates: lost weight, Prometheus; and what a version that comes back accepts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from moe_core.rollout import Outcome
from moe_core.rows import GateRow
from moe_operator.asking import router_report
from moe_operator.gate_verdict import degraded_more
from moe_operator.strategy import Limits
from moe_operator.verdict import Evidence
from moe_operator.window import Window
from moeops.v1 import router_pb2
from tests.operator.plan.bodies import QUICK_GATE, expert, gate, mixture, override, sha, steps
from tests.operator.plan.looks import condition
from tests.operator.plan.simulation import Behaviour, Simulation


def started(**analysis: Any) -> Simulation:
    """Return a mixture whose gate is to become g2, with Prometheus and this analysis."""
    sim = Simulation(traffic=40)
    sim.put("Mixture", mixture(routers={"replicas": 1}, prometheus={"address": "http://p:9090"}))
    for name in ("e0", "e1"):
        sim.put("Expert", expert(name))
    sim.put("Gate", gate(["e0", "e1"]))
    sim.run(8)
    rollout = {**QUICK_GATE, "steps": steps(50, pause=3)}
    rollout["analysis"] = {"minShadowRows": 20, **analysis}
    body = gate(["e0", "e1"], "g2", rollout=rollout)
    sim.put("Gate", {**sim.bodies["Gate", "gate"], "spec": body["spec"]})
    return sim


def served(sim: Simulation) -> GateRow:
    assert sim.stored is not None
    return sim.stored.table.gates[0]


def says(sim: Simulation) -> tuple[str, str]:
    return condition(sim, "Gate", "gate", "Progressing")[1:]


def window(sessions: int, lost_percent: float) -> Window:
    """Return what sessions of ten requests had of a gate, so much of its weight lost."""
    mass = 10.0 * sessions
    return Window(
        requests=10 * sessions,
        rows=10 * sessions,
        overflow_sessions=sessions,
        mass=mass,
        lost_mass=mass * lost_percent / 100,
    )


@pytest.mark.parametrize(
    ("candidate", "stable", "passed"),
    [
        pytest.param(window(400, 0), window(400, 0), True, id="nothing is lost"),
        pytest.param(window(400, 20), window(400, 0), False, id="a fifth is lost"),
        pytest.param(window(400, 20), window(400, 19), True, id="stable loses as much"),
        pytest.param(window(20, 50), window(400, 0), True, id="too few sessions to tell"),
        pytest.param(window(400, 6), window(400, 0), True, id="not surely more than the limit"),
        pytest.param(Window(), Window(), True, id="nothing seen"),
    ],
)
def test_lost_weight_counts_against_a_gate(candidate: Window, stable: Window, passed: bool) -> None:
    found = degraded_more(Evidence(candidate, stable, False, Limits(), 20))
    assert found.passed is passed
    assert "of the gate's weight was degraded" in found.reason


def test_a_limit_of_its_own_for_lost_weight() -> None:
    limits = replace(Limits(), max_degraded_increase_percent=30)
    seen = Evidence(window(400, 20), window(400, 0), False, limits, 20)
    assert degraded_more(seen).passed is True


def test_routers_tell_of_the_weight_that_was_lost() -> None:
    digest = sha("gate", "g2")
    counters = router_pb2.GateCounters(gate="gate", sha256=digest, mass=12.5, lost_mass=2.5)
    found = router_report(router_pb2.DescribeResponse(gate_counters=[counters]), (digest,))
    assert (found.versions[digest].mass, found.versions[digest].lost_mass) == (12.5, 2.5)


def test_a_gate_whose_rows_go_to_stand_ins_is_taken_back() -> None:
    sim = started()
    sim.behaviours[sha("gate", "g2")] = Behaviour(lost=0.6)
    sim.run(20)
    found = served(sim).rollout
    assert found is not None
    assert found.outcome is Outcome.ROLLED_BACK
    assert "60.0% of the gate's weight was degraded, against 0.0%" in found.reason


QUERY = {
    "name": "complaints",
    "query": 'bad{v="{{version}}",g="{{gate}}",e="{{expert}}",m="{{mixture}}"}',
    "maxIncreasePercent": 10,
}
ASKED = 'bad{v="%s",g="gate",e="",m="tiny"}'


@pytest.mark.parametrize(("candidate", "version"), [(1.05, "g2"), (1.2, "g1")])
def test_prometheus_is_asked_of_gates_too(candidate: float, version: str) -> None:
    sim = started(prometheus=[QUERY])
    sim.samples = {ASKED % "g1": 1.0, ASKED % "g2": candidate}
    sim.run(20)
    assert served(sim).stable.version == version
    if version == "g1":
        said = "complaints is 1.2 against 1 of stable; maxIncreasePercent is 10"
        assert said in says(sim)[1]


def test_a_query_without_an_answer_keeps_a_gate_waiting() -> None:
    sim = started(prometheus=[QUERY])
    sim.samples = {ASKED % "g1": 1.0}
    sim.run(20)
    assert served(sim).candidate is not None
    assert "complaints: no data" in says(sim)[1]


def put_gate(sim: Simulation, version: str, *accepted: str) -> None:
    body = gate(["e0", "e1"], version)
    body["spec"]["experts"][0]["versions"] = list(accepted)
    sim.put("Gate", {**sim.bodies["Gate", "gate"], "spec": body["spec"]})


def test_a_version_that_comes_back_accepts_what_it_accepted_last() -> None:
    """Also what was added to it after its revision was made."""
    sim = started()
    put_gate(sim, "g2", "v1")
    sim.run(20)
    put_gate(sim, "g2", "v1", "v2")
    sim.run(2)
    assert served(sim).stable.accepts == {"e0": ("v1", "v2")}
    sim.want("e0", "v2")
    sim.run(30)
    put_gate(sim, "g3", "v1", "v2")
    sim.run(30)
    assert (served(sim).stable.version, served(sim).previous) == ("g3", None)
    sim.put(
        "Override", override("back", "gate", "Serve", kind="Gate", version="g2", insteadOf="g3")
    )
    sim.run(2)
    assert served(sim).stable.version == "g2"
    assert served(sim).stable.accepts == {"e0": ("v1", "v2")}
