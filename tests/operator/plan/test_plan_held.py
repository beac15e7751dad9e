"""Gates that accept only some versions: what does not fit is held, and changes with its gate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from moe_core.rows import GateRow
from tests.operator.plan.bodies import expert, gate, mixture, override, sha, steps
from tests.operator.plan.looks import condition, deployments, row, stable
from tests.operator.plan.simulation import Simulation

QUICK = {"steps": steps(50, pause=1), "minRequests": 1, "scaleDownDelaySeconds": 2}


def put_gate(
    sim: Simulation,
    version: str,
    accepts: Mapping[str, list[str]],
    name: str = "gate",
    **spec: Any,
) -> None:
    body = gate(["e0", "e1"], version, name=name, **spec)
    body["spec"]["experts"] = [
        {"id": e, **({"versions": accepts[e]} if e in accepts else {})} for e in ("e0", "e1")
    ]
    sim.put("Gate", {**sim.bodies.get(("Gate", name), {}), **body})


def choosy(**accepts: list[str]) -> Simulation:
    """Return a mixture whose gate accepts v1 of e0 only, unless told otherwise."""
    sim = Simulation(traffic=4)
    sim.put("Mixture", mixture(routers={"replicas": 1}))
    for name in ("e0", "e1"):
        sim.put("Expert", expert(name, replicas=2, rollout=QUICK))
    put_gate(sim, "g1", accepts or {"e0": ["v1"]})
    return sim.run(8)


def served_gate(sim: Simulation, name: str = "gate") -> GateRow:
    assert sim.stored is not None
    return next(g for g in sim.stored.table.gates if g.name == name)


def pair(sim: Simulation) -> tuple[str, str]:
    return served_gate(sim).stable.version, stable(sim)


def says(sim: Simulation, kind: str, name: str) -> tuple[str, str, str]:
    return condition(sim, kind, name, "Progressing")


def epoch(sim: Simulation) -> int:
    assert sim.stored is not None
    return sim.stored.table.epoch


def changes_at_once(sim: Simulation, seconds: int = 12) -> None:
    """Go on until gate and expert have changed; they must do so in one epoch."""
    for _ in range(seconds):
        before = epoch(sim)
        assert pair(sim) == ("g1", "v1")
        sim.tick()
        if pair(sim) != ("g1", "v1"):
            assert pair(sim) == ("g2", "v2")
            assert epoch(sim) == before + 1
            return
    raise AssertionError(f"{pair(sim)} is still served")


def test_a_version_that_the_gate_does_not_accept_is_held_warm() -> None:
    sim = choosy()
    sim.want("e0", "v2")
    sim.run(12)
    assert pair(sim) == ("g1", "v1")
    assert row(sim).candidate is None
    assert deployments(sim) == {sha("e0", "v1"): 2, sha("e0", "v2"): 1}
    status, reason, message = says(sim, "Expert", "e0")
    assert (status, reason) == ("False", "Held")
    assert "g1 of Gate gate accepts v1 of e0, not v2" in message
    written = len(sim.writes)
    sim.run(5)
    assert sim.writes[written:] == []


def expert_first(sim: Simulation) -> None:
    sim.want("e0", "v2")
    sim.run(5)
    put_gate(sim, "g2", {"e0": ["v2"]})


def gate_first(sim: Simulation) -> None:
    put_gate(sim, "g2", {"e0": ["v2"]})
    sim.run(5)
    assert says(sim, "Gate", "gate") == (
        "False",
        "Held",
        "g2 of Gate gate accepts v2 of e0, not v1; e0 is to serve v1",
    )
    sim.want("e0", "v2")


@pytest.mark.parametrize("order", [expert_first, gate_first])
def test_gate_and_version_change_in_one_epoch(order: Callable[[Simulation], None]) -> None:
    sim = choosy()
    order(sim)
    changes_at_once(sim)
    assert deployments(sim) == {sha("e0", "v1"): 2, sha("e0", "v2"): 2}
    sim.run(6)
    assert row(sim).previous is None
    assert says(sim, "Expert", "e0")[:2] == ("True", "Complete")
    assert says(sim, "Gate", "gate")[:2] == ("True", "Complete")
    assert deployments(sim) == {sha("e0", "v2"): 2}
    assert [n.reason for n in sim.told if n.name == "e0"][-1] == "Promoted"


@pytest.mark.parametrize("order", [expert_first, gate_first])
def test_the_way_back_is_one_epoch_too(order: Callable[[Simulation], None]) -> None:
    sim = choosy()
    order(sim)
    changes_at_once(sim)
    sim.run(4)
    sim.want("e0", "v1")
    put_gate(sim, "g1", {"e0": ["v1"]})
    sim.run(16)
    assert pair(sim) == ("g1", "v1")
    assert deployments(sim) == {sha("e0", "v1"): 2}


@pytest.mark.parametrize("order", [expert_first, gate_first])
def test_a_death_after_any_write_leaves_no_pair_that_does_not_fit(
    order: Callable[[Simulation], None],
) -> None:
    undisturbed = choosy()
    begun = len(undisturbed.writes)
    order(undisturbed)
    undisturbed.run(14)
    for write in range(begun, len(undisturbed.writes)):
        sim = choosy()
        sim.die_after = write
        order(sim)
        sim.run(18)
        assert sim.die_after is None
        assert pair(sim) == ("g2", "v2")
        assert sim.writes.count("table") == undisturbed.writes.count("table")
        assert deployments(sim) == {sha("e0", "v2"): 2}


def test_a_gate_that_accepts_both_goes_first_and_the_version_is_tried_out_after_it() -> None:
    sim = choosy()
    sim.want("e0", "v2")
    sim.run(5)
    put_gate(sim, "g2", {"e0": ["v1", "v2"]})
    while pair(sim) == ("g1", "v1"):
        sim.tick()
    assert pair(sim) == ("g2", "v1")
    sim.run(15)
    found = row(sim).rollout
    assert found is not None
    assert [w.percent for w in found.weights] == [50, 100]
    assert pair(sim) == ("g2", "v2")


def test_a_step_waits_until_the_pods_of_the_held_version_serve() -> None:
    sim = choosy()
    sim.want("e0", "v2")
    sim.run(6)
    sim.full = {"n1"}
    put_gate(sim, "g2", {"e0": ["v2"]})
    sim.run(10)
    assert pair(sim) == ("g1", "v1")
    found = row(sim).rollout
    assert found is not None
    assert found.weight == 50
    assert says(sim, "Expert", "e0")[:2] == ("False", "Unschedulable")
    assert says(sim, "Gate", "gate")[:2] == ("False", "Unschedulable")
    sim.full = set()
    sim.run(6)
    assert pair(sim) == ("g2", "v2")


def test_a_gate_with_other_rollouts_under_way_waits_for_them_with_its_version() -> None:
    sim = choosy()
    sim.change("e1", rollout={**QUICK, "steps": steps(50, pause=14)})
    sim.want("e1", "v2")
    sim.run(3)
    expert_first(sim)
    sim.run(5)
    assert says(sim, "Gate", "gate")[1] == "WouldConfound"
    sim.run(20)
    assert pair(sim) == ("g2", "v2")
    assert stable(sim, "e1") == "v2"


@pytest.mark.parametrize("version", ["g1", "g2"])
def test_gates_of_which_one_only_accepts_another_version_change_with_it_at_once(
    version: str,
) -> None:
    """Sessions are told apart by versions of gates, of which one has no other."""
    sim = Simulation(traffic=4)
    sim.put("Mixture", mixture(routers={"replicas": 1}))
    for name in ("e0", "e1"):
        sim.put("Expert", expert(name, rollout=QUICK))
    for layer in (0, 1):
        put_gate(sim, "g1", {"e0": ["v1"]}, f"gate-{layer}", layers=[layer])
    sim.run(8)
    old, new = {"e0": ("v1",)}, {"e0": ("v2",)}
    sim.want("e0", "v2")
    put_gate(sim, version, {"e0": ["v2"]}, "gate-0", layers=[0])
    sim.run(8)
    assert (served_gate(sim, "gate-0").stable.accepts, stable(sim)) == (old, "v1")
    put_gate(sim, "g1", {"e0": ["v2"]}, "gate-1", layers=[1])
    while stable(sim) == "v1":
        assert served_gate(sim, "gate-0").stable.accepts == old
        sim.tick()
    assert [served_gate(sim, f"gate-{n}").stable.accepts for n in (0, 1)] == [new, new]
    assert stable(sim) == "v2"
    # Nobody is pinned to what was served; it stays warm for a way back.
    assert row(sim).previous is None
    assert deployments(sim) == {sha("e0", "v1"): 1, sha("e0", "v2"): 1}
    sim.run(4)
    assert deployments(sim) == {sha("e0", "v2"): 1}


def test_a_version_under_rollout_keeps_a_gate_that_does_not_accept_it_away() -> None:
    sim = choosy(e0=["v1", "v2"])
    sim.want("e0", "v2")
    sim.run(3)
    put_gate(sim, "g1", {"e0": ["v1"]})
    sim.run(15)
    assert stable(sim) == "v2"
    assert says(sim, "Gate", "gate")[:2] == ("False", "Held")
    assert served_gate(sim).stable.accepts == {"e0": ("v1", "v2")}


def test_an_override_cannot_serve_what_the_gate_does_not_accept() -> None:
    sim = choosy()
    expert_first(sim)
    changes_at_once(sim)
    sim.put("Override", override("back", "e0", "Serve", version="v1", insteadOf="v2"))
    sim.run(6)
    assert pair(sim) == ("g2", "v2")
    status = sim.bodies["Override", "back"]["status"]
    assert status["state"] == "Refused"
    assert status["message"] == "g2 of Gate gate accepts v2 of e0, not v1"


def test_an_override_that_serves_the_old_version_keeps_the_gate_waiting() -> None:
    sim = choosy()
    sim.want("e0", "v2")
    sim.run(2)
    sim.put("Override", override("stay", "e0", "Serve", version="v1", insteadOf="v2"))
    put_gate(sim, "g2", {"e0": ["v2"]})
    sim.run(8)
    assert pair(sim) == ("g1", "v1")
    assert says(sim, "Gate", "gate")[1] == "Held"
    sim.remove("Override", "stay")
    sim.run(12)
    assert pair(sim) == ("g2", "v2")


def test_a_pause_holds_what_is_held() -> None:
    sim = choosy()
    sim.put("Override", override("wait", "e0", "Pause", insteadOf="v2"))
    expert_first(sim)
    sim.run(8)
    assert pair(sim) == ("g1", "v1")
    assert says(sim, "Gate", "gate")[1] == "Paused"
    assert served_gate(sim).rollout is not None
    sim.remove("Override", "wait")
    sim.run(12)
    assert pair(sim) == ("g2", "v2")


def test_a_first_version_that_the_gate_in_service_does_not_accept() -> None:
    sim = choosy()
    sim.remove("Expert", "e0")
    sim.run(3)
    again = expert("e0", "v2", created=30, rollout=QUICK)
    again["metadata"]["uid"] = "uid-again"
    sim.put("Expert", again)
    sim.run(8)
    assert stable(sim) == ""
    assert condition(sim, "Expert", "e0", "Ready")[:2] == ("False", "Held")
    put_gate(sim, "g2", {"e0": ["v2"]})
    sim.run(2)
    assert pair(sim) == ("g2", "v2")


def test_another_name_for_the_same_artifact_is_held_as_well() -> None:
    sim = choosy()
    artifact = sim.bodies["Expert", "e0"]["spec"]["artifact"]
    sim.change("e0", version="v1-final", artifact=artifact)
    sim.run(3)
    assert stable(sim) == "v1"
    assert says(sim, "Expert", "e0")[1] == "Held"
    put_gate(sim, "g2", {"e0": ["v1-final"]})
    sim.run(5)
    assert pair(sim) == ("g2", "v1-final")


def test_a_held_version_that_is_no_longer_wanted_leaves_nothing() -> None:
    sim = choosy()
    sim.want("e0", "v2")
    sim.run(5)
    sim.want("e0", "v1")
    sim.run(5)
    assert deployments(sim) == {sha("e0", "v1"): 2}
    assert says(sim, "Expert", "e0")[:2] == ("True", "Complete")
