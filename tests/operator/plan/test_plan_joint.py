"""A gate and the versions that only it accepts, tried out on the same sessions, step by step.

That no session is on a pair that does not fit is checked of every table (see `invariants`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from moe_core.pins import pinned
from moe_core.rollout import Outcome, Rollout
from moe_core.rows import ExpertRow, GateRow
from tests.operator.plan.bodies import (
    QUICK_GATE,
    evaluated,
    expert,
    gate,
    mixture,
    override,
    restore,
    sha,
    steps,
    versioned,
)
from tests.operator.plan.looks import condition, deployments, row, stable
from tests.operator.plan.simulation import Behaviour, Simulation

EXPERTS = ("e0", "e1", "e2")
TRIED = ("e0", "e1")
QUICK = {"steps": steps(10, 100, pause=1), "minRequests": 1, "scaleDownDelaySeconds": 2}
SLOW = {**QUICK_GATE, "steps": steps(25, 50, pause=2)}


def put_gate(sim: Simulation, version: str, of_experts: str, **rollout: object) -> None:
    """Put a gate that accepts one version of e0 and e1, and any of e2."""
    body = gate(EXPERTS, version, rollout={**SLOW, **rollout})
    body["spec"]["experts"] = [
        {"id": e, **({"versions": [of_experts]} if e in TRIED else {})} for e in EXPERTS
    ]
    sim.put("Gate", {**sim.bodies.get(("Gate", "gate"), {}), **body})


def served(replicas: int = 2, **spec: object) -> Simulation:
    sim = Simulation(traffic=8)
    sim.put("Mixture", mixture(routers={"replicas": 1}, **spec))
    for name in EXPERTS:
        sim.put("Expert", expert(name, replicas=replicas, rollout=QUICK))
    put_gate(sim, "g1", "v1")
    return sim.run(8)


def experts_first(sim: Simulation) -> None:
    for name in TRIED:
        sim.want(name, "v2")
        sim.run(2)
    put_gate(sim, "g2", "v2")


def gate_first(sim: Simulation) -> None:
    put_gate(sim, "g2", "v2")
    for name in TRIED:
        sim.run(2)
        sim.want(name, "v2")


def begun(sim: Simulation) -> Simulation:
    experts_first(sim)
    return sim


def gate_row(sim: Simulation) -> GateRow:
    assert sim.stored is not None
    return sim.stored.table.gates[0]


def rows(sim: Simulation) -> tuple[GateRow, ExpertRow, ExpertRow]:
    return gate_row(sim), row(sim, "e0"), row(sim, "e1")


def rollout(of: GateRow | ExpertRow) -> Rollout:
    assert of.rollout is not None
    return of.rollout


def names(sim: Simulation, session: str, began: int) -> tuple[str, ...]:
    found = (pinned(of, session, began) for of in rows(sim))
    return tuple(version.version for version in found if version is not None)


def epoch(sim: Simulation) -> int:
    assert sim.stored is not None
    return sim.stored.table.epoch


def until(sim: Simulation, weight: int) -> Simulation:
    """Go on until so many of new sessions see the new versions."""
    for _ in range(40):
        if rollout_weight(sim) >= weight:
            return sim
        sim.tick()
    raise AssertionError(f"{rollout_weight(sim)}%: {says(sim)}")


def rollout_weight(sim: Simulation) -> int:
    found = gate_row(sim).rollout
    return found.weight if found is not None and not found.outcome.ended else 0


def says(sim: Simulation, kind: str = "Gate", name: str = "gate") -> tuple[str, str]:
    return condition(sim, kind, name, "Progressing")[1:]


def stables(sim: Simulation) -> tuple[str, ...]:
    return gate_row(sim).stable.version, stable(sim, "e0"), stable(sim, "e1")


def changes(sim: Simulation, seconds: int) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Give (weight, stable versions) each time that they have changed."""
    last = None
    for _ in range(seconds):
        sim.tick()
        seen = rollout_weight(sim), stables(sim)
        if seen != last:
            yield seen
        last = seen


OLD, NEW = ("g1", "v1", "v1"), ("g2", "v2", "v2")


@pytest.mark.parametrize("order", [experts_first, gate_first])
def test_all_go_from_the_dark_to_some_sessions_to_all_in_one_epoch_each(
    order: Callable[[Simulation], None],
) -> None:
    sim = served()
    order(sim)
    assert list(changes(sim, 25)) == [(0, OLD), (25, OLD), (50, OLD), (0, NEW)]
    assert [says(sim), says(sim, "Expert", "e0")] == [
        ("Complete", "g2 is served"),
        ("Complete", "v2 is served"),
    ]
    first, *others = (rollout(of) for of in rows(sim))
    assert [w.percent for w in first.weights] == [25, 50, 100]
    assert {(r.salt, r.weights) for r in others} == {(first.salt, first.weights)}


def test_a_session_is_on_all_new_versions_or_on_all_old_ones_and_stays_there() -> None:
    sim = until(begun(served()), 50)
    sessions, began = [f"session {n}" for n in range(60)], epoch(sim)
    before = {session: names(sim, session, began) for session in sessions}
    assert set(before.values()) == {OLD, NEW}
    while stables(sim) == OLD:
        sim.tick()
    assert {session: names(sim, session, began) for session in sessions} == before
    assert all(of.previous is not None for of in rows(sim))
    assert deployments(sim) == {sha("e0", "v1"): 2, sha("e0", "v2"): 2}
    sim.run(6)
    assert [of.previous for of in rows(sim)] == [None] * 3
    assert deployments(sim) == {sha("e0", "v2"): 2}


def test_what_was_replaced_stays_as_long_as_the_longest_of_them_wants() -> None:
    sim = served()
    sim.change("e1", rollout={**QUICK, "scaleDownDelaySeconds": 9})
    until(begun(sim), 50)
    while stables(sim) == OLD:
        sim.tick()
    sim.run(6)
    assert all(of.previous is not None for of in rows(sim))
    sim.run(5)
    assert [of.previous for of in rows(sim)] == [None] * 3


BAD = {
    "an expert's answers": (sha("e1", "v2"), Behaviour(nonfinite=True)),
    "the gate's requests": (sha("gate", "g2"), Behaviour(fails=True)),
    "the gate's outcomes": (sha("gate", "g2"), Behaviour(bits=3.0)),
}


@pytest.mark.parametrize("cause", BAD)
def test_the_first_objection_takes_all_of_them_back_in_one_epoch(cause: str) -> None:
    sim = served()
    sim.traffic, sim.reporting = 40, True
    digest, behaviour = BAD[cause]
    sim.behaviours[digest] = behaviour
    until(begun(sim), 25)
    began, last = epoch(sim), epoch(sim)
    while gate_row(sim).candidate is not None:
        assert row(sim, "e0").candidate is not None
        last = epoch(sim)
        sim.tick()
    assert epoch(sim) == last + 1
    assert stables(sim) == OLD
    assert [rollout(of).outcome for of in rows(sim)] == [Outcome.ROLLED_BACK] * 3
    assert {names(sim, f"session {n}", began) for n in range(40)} == {OLD}
    blamed = "e1" if cause == "an expert's answers" else "Gate gate"
    others = {"e0": "Expert", "e1": "Expert"} if blamed == "Gate gate" else {"e0": "Expert"}
    for name, kind in others.items():
        assert "v2 was taken back with " + blamed in rollout(row(sim, name)).reason
        assert says(sim, kind, name)[0] == "Held"
    written = sim.writes.count("table")
    sim.run(15)
    assert sim.writes.count("table") == written, "what failed is not tried again by itself"


def test_a_retry_of_the_gate_tries_its_experts_again() -> None:
    sim = served()
    sim.behaviours[sha("gate", "g2")] = Behaviour(fails=True)
    until(begun(sim), 25)
    sim.run(20)
    assert says(sim)[0] == "RolledBack"
    sim.behaviours.clear()
    sim.put("Override", override("again", "gate", "Retry", kind="Gate", revision=2))
    sim.run(30)
    assert stables(sim) == NEW


def test_an_expert_that_failed_itself_is_waited_for_until_it_is_tried_again() -> None:
    sim = served()
    sim.behaviours[sha("e1", "v2")] = Behaviour(nonfinite=True)
    until(begun(sim), 25)
    sim.run(20)
    assert says(sim, "Expert", "e1")[0] == "RolledBack"
    sim.behaviours.clear()
    sim.put("Override", override("again", "gate", "Retry", kind="Gate", revision=2))
    sim.run(15)
    reason, message = says(sim)
    assert reason == "Held"
    assert "v2 is not tried again: v2 was taken back" in message
    sim.put("Override", override("too", "e1", "Retry", revision=2))
    sim.run(30)
    assert stables(sim) == NEW


@pytest.mark.parametrize(("kind", "name"), [("Gate", "gate"), ("Expert", "e0"), ("Expert", "e1")])
@pytest.mark.parametrize("action", ["Abort", "Promote"])
def test_what_a_person_asks_of_one_is_done_to_all(kind: str, name: str, action: str) -> None:
    sim = until(begun(served()), 25)
    before = epoch(sim)
    sim.put(
        "Override",
        override("now", name, action, kind=kind, revision=2, requestedBy="ann", step=1),
    )
    sim.operate()
    assert epoch(sim) == before + 1
    assert stables(sim) == (OLD if action == "Abort" else NEW)
    assert {rollout(of).by for of in rows(sim)} == {"ann"}
    assert sim.bodies["Override", "now"]["status"]["state"] == "Done"


@pytest.mark.parametrize(("kind", "name"), [("Gate", "gate"), ("Expert", "e1")])
def test_a_pause_of_one_holds_all(kind: str, name: str) -> None:
    sim = until(begun(served()), 25)
    instead_of = "g2" if kind == "Gate" else "v2"
    sim.put("Override", override("wait", name, "Pause", kind=kind, insteadOf=instead_of))
    sim.run(12)
    assert rollout_weight(sim) == 25
    assert {rollout(of).outcome for of in rows(sim)} == {Outcome.PAUSED}
    assert {says(sim)[0], says(sim, "Expert", "e0")[0]} == {"Paused"}
    written = len(sim.writes)
    sim.run(4)
    assert "table" not in sim.writes[written:]
    sim.remove("Override", "wait")
    sim.run(20)
    assert stables(sim) == NEW


def back_to_g1(sim: Simulation) -> None:
    put_gate(sim, "g1", "v1")


def back_to_v1(sim: Simulation) -> None:
    sim.want("e1", "v1")


def serve_g1(sim: Simulation) -> None:
    sim.put(
        "Override", override("back", "gate", "Serve", kind="Gate", version="g1", insteadOf="g2")
    )


def serve_v1(sim: Simulation) -> None:
    sim.put("Override", override("back", "e0", "Serve", version="v1", insteadOf="v2"))


@pytest.mark.parametrize("act", [back_to_g1, back_to_v1, serve_g1, serve_v1])
def test_who_leaves_in_the_middle_takes_all_of_them_back(act: Callable[[Simulation], None]) -> None:
    sim = until(begun(served()), 25)
    before = epoch(sim)
    act(sim)
    sim.operate()
    assert stables(sim) == OLD
    assert [of.candidate for of in rows(sim)[1:]] == [None, None]
    assert rollout_weight(sim) == 0
    assert len(rollout(row(sim)).weights) == 2
    assert epoch(sim) > before
    sim.run(10)
    assert stables(sim) == OLD


@pytest.mark.parametrize("act", [serve_g1, serve_v1])
def test_what_an_override_took_back_is_tried_again_without_it(
    act: Callable[[Simulation], None],
) -> None:
    sim = until(begun(served()), 25)
    act(sim)
    sim.run(8)
    assert stables(sim) == OLD
    sim.remove("Override", "back")
    sim.run(30)
    assert stables(sim) == NEW


@pytest.mark.parametrize("act", [back_to_g1, serve_g1])
def test_the_gate_takes_its_experts_back_also_when_all_are_promoted(
    act: Callable[[Simulation], None],
) -> None:
    sim = until(begun(served()), 50)
    while stables(sim) == OLD:
        sim.tick()
    before = epoch(sim)
    act(sim)
    sim.operate()
    assert stables(sim) == OLD
    assert epoch(sim) == before + 1
    assert [of.previous for of in rows(sim)] == [None] * 3
    assert {names(sim, f"session {n}", before) for n in range(40)} == {OLD}
    sim.run(8)
    assert says(sim, "Expert", "e0")[0] == "Held"
    assert stables(sim) == OLD


@pytest.mark.parametrize(("bits", "expected"), [(0.0, NEW), (0.5, OLD)])
def test_the_golden_set_is_read_by_old_and_new_versions_of_all(
    bits: float, expected: tuple[str, ...]
) -> None:
    sim = served(**evaluated())
    sim.behaviours[sha("gate", "g2")] = Behaviour(golden=(bits, 0.01))
    put_gate(sim, "g2", "v2")
    sim.run(10)
    assert not [w for w in sim.writes if w.startswith("create")], "not without its experts"
    asked = set()
    for name in TRIED:
        sim.want(name, "v2")
    for _ in range(40):
        sim.tick()
        asked |= {pod.environment["MOE_EVAL_BESIDE"] for pod in sim.evaluators.values()}
    beside = ",".join(f"{name}={sha(name, 'v1')}:{sha(name, 'v2')}" for name in TRIED)
    assert asked == {beside}
    (made,) = [w for w in sim.writes if w.startswith("create")]
    assert made.startswith("create gate-gate-eval-2-")
    assert stables(sim) == expected
    if expected == OLD:
        assert {len(rollout(of).weights) for of in rows(sim)} == {0}


def test_an_expert_that_comes_to_no_pods_keeps_the_gate_waiting_and_is_named() -> None:
    sim = until(begun(served(replicas=4)), 25)
    sim.full = {"n1"}
    sim.run(12)
    assert rollout_weight(sim) == 25
    assert {says(sim)[0], says(sim, "Expert", "e0")[0]} == {"Unschedulable"}
    assert says(sim)[1].startswith("waits for e0: ")
    sim.full = set()
    sim.run(12)
    assert stables(sim) == NEW


def test_an_expert_that_could_go_on_waits_for_the_gate() -> None:
    sim = served(replicas=1)
    experts_first(sim)
    put_gate(sim, "g2", "v2", minRequests=12)
    until(sim, 25)
    sim.run(4)
    assert rollout_weight(sim) == 25
    reason, message = says(sim, "Expert", "e0")
    assert reason == "Canary"
    assert message.startswith("waits for Gate gate: step 1 of 2 at 25%: ")
    sim.run(20)
    assert stables(sim) == NEW


def test_an_epoch_that_is_brought_back_in_the_middle_takes_all_of_them_back() -> None:
    sim = served()
    kept = epoch(sim)
    until(begun(sim), 25)
    sim.put("Override", restore(kept, e0="v2", e1="v2", gate="g2"))
    sim.run(4)
    assert stables(sim) == OLD
    assert [of.candidate for of in rows(sim)] == [None] * 3
    assert sim.bodies["Override", "back"]["status"]["state"] == "Active"
    sim.remove("Override", "back")
    sim.run(30)
    assert stables(sim) == NEW


def test_a_gate_that_is_deleted_in_the_middle_leaves_its_experts_to_themselves() -> None:
    sim = until(begun(served()), 25)
    sim.remove("Gate", "gate")
    sim.run(30)
    assert sim.stored is not None
    assert sim.stored.table.gates == ()
    assert sim.look().table is None


def test_another_rollout_is_waited_for_and_none_begins_before_it() -> None:
    sim = served()
    sim.change("e2", rollout={**QUICK, "steps": steps(50, pause=14)})
    sim.want("e2", "v2")
    sim.run(4)
    experts_first(sim)
    sim.run(5)
    assert says(sim)[0] == "WouldConfound"
    assert row(sim, "e0").candidate is None
    sim.run(12)
    sim.change("e2", **versioned("e2", "v3"))
    sim.run(4)
    assert says(sim, "Expert", "e2")[1] == "v3 waits until Gate gate has changed"
    sim.run(40)
    assert stables(sim) == NEW
    assert stable(sim, "e2") == "v3"


@pytest.mark.parametrize("order", [experts_first, gate_first])
def test_a_death_after_any_write_changes_nothing(order: Callable[[Simulation], None]) -> None:
    def story(die_after: int | None) -> Simulation:
        sim = served(replicas=1)
        sim.die_after = die_after
        order(sim)
        return sim.run(26)

    lived, first = story(None), len(served(replicas=1).writes)
    assert stables(lived) == NEW
    for write in range(first, len(lived.writes)):
        sim = story(write)
        assert sim.die_after is None
        assert stables(sim) == NEW
        assert sim.writes.count("table") == lived.writes.count("table")
        assert deployments(sim) == {sha("e0", "v2"): 1}
