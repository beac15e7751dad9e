"""Several rollouts at once: whose turn it is, who waits for whom, and in which order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from moe_core.rollout import Outcome
from tests.operator.plan.bodies import expert, gate, mixture, override, sha, steps
from tests.operator.plan.looks import condition, row, stable
from tests.operator.plan.simulation import Behaviour, Simulation

LONG = {"steps": steps(50, pause=6), "minRequests": 1, "scaleDownDelaySeconds": 2}


def several(
    count: int, limit: int | None = 1, rollout: Any = LONG, **specs: dict[str, Any]
) -> Simulation:
    """Return a mixture of so many experts, of which `limit` may be under rollout at once."""
    sim = Simulation(traffic=4)
    rollouts = {} if limit is None else {"rollouts": {"maxConcurrent": limit}}
    sim.put("Mixture", mixture(routers={"replicas": 1}, **rollouts))
    names = [f"e{number}" for number in range(count)]
    for name in names:
        sim.put("Expert", expert(name, rollout=rollout, **specs.get(name, {})))
    routed = [name for name in names if specs.get(name, {}).get("role") != "Dense"]
    sim.put("Gate", gate(routed))
    return sim.run(8)


def under_way(sim: Simulation, count: int = 4) -> list[str]:
    found = []
    for name in (f"e{number}" for number in range(count)):
        rollout = row(sim, name).rollout
        if rollout is not None and not rollout.outcome.ended:
            found.append(name)
    return found


def says(sim: Simulation, name: str) -> tuple[str, str]:
    return condition(sim, "Expert", name, "Progressing")[1:]


def want_all(sim: Simulation, names: Sequence[str], version: str = "v2") -> None:
    for name in names:
        sim.want(name, version)


def begun_in_order(sim: Simulation, seconds: int, count: int = 4) -> list[str]:
    """Return the experts in the order in which their rollouts began, after so many seconds."""
    seen: list[str] = []
    for _ in range(seconds):
        sim.tick()
        seen += [name for name in under_way(sim, count) if name not in seen]
    return seen


def test_more_rollouts_than_may_be_at_once_wait_and_say_who_is_ahead() -> None:
    sim = several(3)
    want_all(sim, ["e0", "e1", "e2"])
    sim.run(2)
    assert under_way(sim, 3) == ["e0"]
    setting = "spec.rollouts.maxConcurrent of the Mixture is 1"
    assert says(sim, "e1") == (
        "WaitingForTurn",
        f"v2 waits for its turn; under way: e0; {setting}",
    )
    assert says(sim, "e2") == ("WaitingForTurn", f"v2 waits for its turn, after e1; {setting}")
    assert len(sim.deployments) == 5, "what waits has no pods"


def test_each_comes_to_its_turn() -> None:
    sim = several(3)
    want_all(sim, ["e0", "e1", "e2"])
    assert begun_in_order(sim, 60, 3) == ["e0", "e1", "e2"]
    assert [stable(sim, name) for name in ("e0", "e1", "e2")] == ["v2"] * 3


def test_four_go_at_once_where_nothing_is_said() -> None:
    sim = several(6, limit=None)
    want_all(sim, [f"e{number}" for number in range(6)])
    sim.tick()
    assert under_way(sim, 6) == ["e0", "e1", "e2", "e3"]


def test_the_oldest_change_goes_first() -> None:
    sim = several(4)
    for name in ("e3", "e1", "e2", "e0"):
        sim.want(name, "v2")
        sim.tick()
    assert begun_in_order(sim, 70) == ["e3", "e1", "e2", "e0"]


def test_an_operator_that_dies_keeps_the_order() -> None:
    sim = several(4)
    seen: list[str] = []
    for name in ("e3", "e1", "e2", "e0"):
        sim.want(name, "v2")
        sim.tick()
        sim.kill_operator()
        seen += [n for n in under_way(sim) if n not in seen]
    for _ in range(25):
        sim.die_after = len(sim.writes) + 1
        seen += [n for n in begun_in_order(sim, 4) if n not in seen]
    assert seen == ["e3", "e1", "e2", "e0"]


def test_a_newer_change_of_what_waits_goes_to_the_end() -> None:
    sim = several(3)
    for name, version in (("e0", "v2"), ("e1", "v2"), ("e2", "v2"), ("e1", "v3")):
        sim.want(name, version)
        sim.tick()
    assert begun_in_order(sim, 60, 3) == ["e0", "e2", "e1"]
    assert stable(sim, "e1") == "v3"


def test_what_is_under_way_keeps_its_place_when_another_version_is_wanted() -> None:
    sim = several(2)
    want_all(sim, ["e0", "e1"])
    sim.tick()
    sim.want("e0", "v3")
    sim.run(2)
    assert under_way(sim, 2) == ["e0"]


def test_what_has_begun_goes_on_when_fewer_may() -> None:
    sim = several(3, limit=2)
    want_all(sim, ["e0", "e1", "e2"])
    sim.run(4)
    sim.put("Mixture", mixture(routers={"replicas": 1}, rollouts={"maxConcurrent": 1}))
    sim.run(2)
    assert under_way(sim, 3) == ["e0", "e1"]
    sim.run(50)
    assert [stable(sim, name) for name in ("e0", "e1", "e2")] == ["v2"] * 3


def test_what_is_served_at_once_waits_for_nobody() -> None:
    sim = several(3)
    sim.want("e1", "v2")
    sim.run(12)
    assert stable(sim, "e1") == "v2"
    want_all(sim, ["e0"])
    sim.run(3)
    assert under_way(sim, 3) == ["e0"]
    back = {"version": "v1", "insteadOf": "v2"}
    sim.put("Override", override("back", "e1", "Serve", **back))
    sim.run(5)
    assert stable(sim, "e1") == "v1"
    sim.want("e0", "v1")
    sim.operate()
    found = row(sim, "e0").rollout
    assert found is not None
    assert found.outcome is Outcome.ABORTED


def test_a_retry_waits_for_no_turn() -> None:
    sim = several(3)
    sim.behaviours[sha("e0", "v2")] = Behaviour(nonfinite=True)
    sim.want("e0", "v2")
    sim.run(10)
    assert under_way(sim, 3) == []
    want_all(sim, ["e1", "e2"])
    sim.tick()
    sim.behaviours.clear()
    sim.put("Override", override("again", "e0", "Retry", revision=2))
    sim.operate()
    assert under_way(sim, 3) == ["e0", "e1"]
    assert sim.bodies["Override", "again"]["status"]["state"] == "Done"


@pytest.mark.parametrize(
    ("specs", "sentence"),
    [
        pytest.param(
            {"e1": {"backupExpertId": "e0"}},
            "v2 waits for the rollout of e0, which is the backup of e1",
            id="its backup is on trial",
        ),
        pytest.param(
            {"e0": {"backupExpertId": "e1"}},
            "v2 waits for the rollout of e0, whose backup e1 is",
            id="it is the backup of what is on trial",
        ),
        pytest.param(
            {"e0": {"role": "Dense"}},
            "v2 waits for the rollout of e0, which stands in for every expert",
            id="what stands in for it is on trial",
        ),
        pytest.param(
            {"e1": {"role": "Dense"}},
            "v2 waits for the rollout of e0, which e1 stands in for",
            id="it stands in for what is on trial",
        ),
    ],
)
def test_rollouts_whose_verdicts_would_mix_wait(
    specs: dict[str, dict[str, Any]], sentence: str
) -> None:
    sim = several(3, limit=4, rollout={**LONG, "minRequests": 0}, **specs)
    for name in ("e0", "e1"):
        sim.want(name, "v2")
        sim.run(2)
    assert says(sim, "e1") == ("WouldConfound", sentence)
    sim.run(40)
    assert [stable(sim, name) for name in ("e0", "e1")] == ["v2", "v2"]


def test_what_waits_for_another_lets_others_pass_but_not_those_that_would_mix_with_it() -> None:
    sim = several(4, limit=4, e1={"backupExpertId": "e0"}, e2={"backupExpertId": "e1"})
    for name in ("e0", "e1", "e2", "e3"):
        sim.want(name, "v2")
        sim.tick()
    assert under_way(sim) == ["e0", "e3"]
    assert says(sim, "e2")[1] == "v2 waits for the rollout of e1, which is the backup of e2"
    assert begun_in_order(sim, 60)[-2:] == ["e1", "e2"]


def put_gate(sim: Simulation, version: str) -> None:
    sim.put("Gate", {**sim.bodies["Gate", "gate"], **gate(["e0", "e1", "e2"], version)})


def served_gate(sim: Simulation) -> str:
    assert sim.stored is not None
    return sim.stored.table.gates[0].stable.version


def on_trial(sim: Simulation) -> str:
    """Return the version of the gate that is on trial."""
    assert sim.stored is not None
    candidate = sim.stored.table.gates[0].candidate
    return candidate.version if candidate is not None else ""


def test_a_gate_waits_for_rollouts_and_the_next_rollouts_for_the_gate() -> None:
    sim = several(3)
    sim.want("e0", "v2")
    sim.run(4)
    put_gate(sim, "g2")
    want_all(sim, ["e1"])
    sim.run(2)
    assert served_gate(sim) == "g1"
    status, reason, message = condition(sim, "Gate", "gate", "Progressing")
    assert (status, reason) == ("True", "WouldConfound")
    assert message.startswith("g2 waits for the rollouts of e0 to end")
    assert says(sim, "e1") == ("WouldConfound", "v2 waits until Gate gate has changed")
    while stable(sim, "e0") == "v1":
        assert served_gate(sim) == "g1"
        sim.tick()
    sim.run(1)
    assert on_trial(sim) == "g2"
    assert says(sim, "e1") == ("WouldConfound", "v2 waits until Gate gate has changed")
    while served_gate(sim) == "g1":
        assert stable(sim, "e1") == "v1"
        sim.tick()
    sim.run(20)
    assert stable(sim, "e1") == "v2"


def test_an_abort_lets_a_gate_go_on_at_once() -> None:
    sim = several(3)
    sim.want("e0", "v2")
    sim.run(4)
    put_gate(sim, "g2")
    sim.tick()
    sim.put("Override", override("stop", "e0", "Abort", revision=2))
    sim.operate()
    assert on_trial(sim) == "g2"


def test_a_gate_that_waits_for_something_else_keeps_no_rollout_from_beginning() -> None:
    sim = several(3)
    sim.put("Gate", {**sim.bodies["Gate", "gate"], **gate(["e0", "e9"], "g2")})
    sim.want("e0", "v2")
    sim.run(2)
    assert under_way(sim, 3) == ["e0"]
    assert condition(sim, "Gate", "gate", "Progressing")[1] == "ExpertsMissing"


def test_a_turn_is_told_once_to_each_and_not_again_with_every_step_of_others() -> None:
    """Of many that wait, a step of one changes what two others say at most."""
    sim = several(8)
    names = [f"e{number}" for number in range(8)]
    want_all(sim, names)
    sim.run(2)
    while row(sim, "e0").stable != row(sim, "e0").rollout.target:  # type: ignore[union-attr]
        before = len(sim.writes)
        sim.tick()
        told = {w for w in sim.writes[before:] if w.startswith("status Expert")}
        assert len(told) <= 3, told
