"""Several gates and the versions that only they accept, tried out on the same sessions as one.

That no session is on a pair that does not fit is checked of every table (see `invariants`).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations

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
)
from tests.operator.plan.looks import condition, deployments, row, stable
from tests.operator.plan.simulation import Behaviour, Simulation

EXPERTS = ("e0", "e1", "e2")
# Which experts the gates of layers 0 and 1 accept one version of only; e1 ties no two of them.
TRIED = {"first": ("e0",), "second": ("e0", "e1")}
QUICK = {"steps": steps(10, 100, pause=1), "minRequests": 1, "scaleDownDelaySeconds": 2}
SLOW = {**QUICK_GATE, "steps": steps(25, 50, pause=2)}
OLD, NEW = ("g1", "g1", "v1", "v1"), ("g2", "g2", "v2", "v2")

Act = Callable[[Simulation], None]


def put_gate(sim: Simulation, name: str, version: str, of_experts: str, **rollout: object) -> None:
    """Put the gate of a layer, of which this version accepts one of some experts."""
    layer = list(TRIED).index(name)
    body = gate(EXPERTS, version, name=name, created=layer, layers=[layer])
    body["spec"]["rollout"] = {**SLOW, **rollout}
    body["spec"]["experts"] = [
        {"id": e, **({"versions": [of_experts]} if e in TRIED[name] else {})} for e in EXPERTS
    ]
    sim.put("Gate", {**sim.bodies.get(("Gate", name), {}), **body})


def served(replicas: int = 2, **spec: object) -> Simulation:
    sim = Simulation(traffic=8)
    sim.put("Mixture", mixture(routers={"replicas": 1}, **spec))
    for name in EXPERTS:
        sim.put("Expert", expert(name, replicas=replicas, rollout=QUICK))
    for name in TRIED:
        put_gate(sim, name, "g1", "v1")
    return sim.run(8)


def first(sim: Simulation) -> None:
    put_gate(sim, "first", "g2", "v2")


def second(sim: Simulation) -> None:
    put_gate(sim, "second", "g2", "v2")


def experts(sim: Simulation) -> None:
    sim.want("e0", "v2")
    sim.want("e1", "v2")


ORDERS = [
    pytest.param(order, id=", ".join(act.__name__ for act in order))
    for order in permutations((first, second, experts))
]


def begun(sim: Simulation) -> Simulation:
    for act in (experts, first, second):
        act(sim)
    return sim


def gate_row(sim: Simulation, name: str = "first") -> GateRow:
    assert sim.stored is not None
    return next(found for found in sim.stored.table.gates if found.name == name)


def rows(sim: Simulation) -> tuple[GateRow | ExpertRow, ...]:
    return *(gate_row(sim, name) for name in TRIED), row(sim, "e0"), row(sim, "e1")


def rollouts(sim: Simulation) -> list[Rollout]:
    return [of.rollout for of in rows(sim) if of.rollout is not None]


def names(sim: Simulation, session: str, began: int) -> tuple[str, ...]:
    found = (pinned(of, session, began) for of in rows(sim))
    return tuple(version.version for version in found if version is not None)


def epoch(sim: Simulation) -> int:
    assert sim.stored is not None
    return sim.stored.table.epoch


def stables(sim: Simulation) -> tuple[str, ...]:
    of_gates = (gate_row(sim, name).stable.version for name in TRIED)
    return *of_gates, stable(sim, "e0"), stable(sim, "e1")


def weight(sim: Simulation) -> int:
    """Return the share of sessions on all new versions; no table has them on a part of them."""
    found = {0 if rollout.outcome.ended else rollout.weight for rollout in rollouts(sim)}
    assert len(found) <= 1, found
    return max(found, default=0)


def until(sim: Simulation, percent: int) -> Simulation:
    for _ in range(40):
        if weight(sim) >= percent:
            return sim
        sim.tick()
    raise AssertionError(f"{weight(sim)}%: {[says(sim, 'Gate', name) for name in TRIED]}")


def promoted(sim: Simulation) -> Simulation:
    until(begun(sim), 50)
    while stables(sim) == OLD:
        sim.tick()
    return sim


def says(sim: Simulation, kind: str, name: str) -> tuple[str, str]:
    return condition(sim, kind, name, "Progressing")[1:]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("apart_s", [0, 5])
def test_all_go_from_the_dark_to_some_sessions_to_all_in_one_epoch_each(
    order: tuple[Act, ...], apart_s: int
) -> None:
    sim, seen = served(), list[tuple[int, tuple[str, ...]]]()
    for act in order:
        sim.run(apart_s)
        assert stables(sim) == OLD
        assert weight(sim) == 0
        act(sim)
    for _ in range(25):
        sim.tick()
        if not seen or seen[-1] != (weight(sim), stables(sim)):
            seen.append((weight(sim), stables(sim)))
    assert seen == [(0, OLD), (25, OLD), (50, OLD), (0, NEW)]
    assert {says(sim, "Gate", name) for name in TRIED} == {("Complete", "g2 is served")}
    assert {says(sim, "Expert", name) for name in ("e0", "e1")} == {("Complete", "v2 is served")}
    assert len({(rollout.salt, rollout.weights) for rollout in rollouts(sim)}) == 1
    assert [of.previous for of in rows(sim)] == [None] * 4
    assert deployments(sim) == {sha("e0", "v2"): 2}


def test_a_session_is_on_all_new_versions_or_on_all_old_ones_and_stays_there() -> None:
    sim = until(begun(served()), 50)
    sessions, began = [f"session {n}" for n in range(40)], epoch(sim)
    before = {session: names(sim, session, began) for session in sessions}
    assert set(before.values()) == {OLD, NEW}
    while stables(sim) == OLD:
        sim.tick()
    assert all(of.previous is not None for of in rows(sim))
    assert {session: names(sim, session, began) for session in sessions} == before


def test_who_is_missing_is_named_and_waited_for_with_the_pods_of_the_first_step() -> None:
    sim = served(replicas=4)
    experts(sim)
    first(sim)
    sim.run(12)
    said = "g2 waits: g1 of Gate second accepts v1 of e0, not v2"
    assert says(sim, "Gate", "first") == ("Held", said)
    assert says(sim, "Expert", "e0")[0] == "Held"
    assert deployments(sim) == {sha("e0", "v1"): 4, sha("e0", "v2"): 1}
    written = sim.writes.count("table")
    sim.run(4)
    assert sim.writes.count("table") == written
    sim.want("e2", "v2")
    sim.run(12)
    assert stable(sim, "e2") == "v2", "who waits for others keeps nobody waiting"
    second(sim)
    sim.run(25)
    assert stables(sim) == NEW


def test_a_gate_that_wants_yet_another_version_is_named() -> None:
    sim = begun(served())
    put_gate(sim, "second", "g2", "v3")
    sim.run(10)
    said = "g2 waits: g2 of Gate second accepts v3 of e0, not v2"
    assert {says(sim, "Gate", name) for name in TRIED} == {("Held", said)}
    assert stables(sim) == OLD


def test_the_steps_are_those_of_the_oldest_and_all_else_is_each_ones_own() -> None:
    sim = served()
    experts(sim)
    put_gate(sim, "second", "g2", "v2", steps=steps(7), minRequests=12)
    put_gate(sim, "first", "g2", "v2")
    until(sim, 25)
    sim.run(4)
    assert weight(sim) == 25
    reason, message = says(sim, "Gate", "first")
    assert reason == "Canary"
    assert message.startswith("waits for Gate second: step 1 of 2 at 25%: ")
    sim.run(20)
    assert stables(sim) == NEW


BAD = {
    "an expert's answers": (sha("e1", "v2"), Behaviour(nonfinite=True)),
    "the first gate's requests": (sha("first", "g2"), Behaviour(fails=True)),
    "the second gate's requests": (sha("second", "g2"), Behaviour(fails=True)),
    "the second gate's outcomes": (sha("second", "g2"), Behaviour(bits=3.0)),
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
        last = epoch(sim)
        sim.tick()
    assert epoch(sim) == last + 1
    assert [of.candidate for of in rows(sim)] == [None] * 4
    assert {rollout.outcome for rollout in rollouts(sim)} == {Outcome.ROLLED_BACK}
    assert {names(sim, f"session {n}", began) for n in range(40)} == {OLD}
    written = sim.writes.count("table")
    sim.run(15)
    assert sim.writes.count("table") == written, "what failed is not tried again by itself"
    assert says(sim, "Expert", "e0")[0] == "Held"
    assert {says(sim, "Gate", name)[0] for name in TRIED} == {"RolledBack"}


def test_what_one_of_them_shows_in_the_shadow_keeps_all_from_their_first_weight() -> None:
    sim = served()
    sim.behaviours[sha("second", "g2")] = Behaviour(first_percent=99)
    begun(sim).run(20)
    assert stables(sim) == OLD
    assert weight(sim) == 0
    assert says(sim, "Gate", "second")[0] == "RolledBack"
    assert says(sim, "Gate", "first")[0] == "Held"


def test_what_routers_cannot_load_of_one_is_waited_for_by_all() -> None:
    sim = served()
    sim.behaviours[sha("second", "g2")] = Behaviour(starts=False)
    begun(sim).run(10)
    assert weight(sim) == 0
    assert says(sim, "Gate", "first")[1].startswith("waits for Gate second: step 0 of 2 at 0%: ")
    sim.behaviours.clear()
    sim.run(20)
    assert stables(sim) == NEW


@pytest.mark.parametrize("again", [("first", "second"), ("second", "first")])
def test_each_gate_is_tried_again_and_the_experts_come_along(again: tuple[str, ...]) -> None:
    sim = served()
    sim.behaviours[sha("second", "g2")] = Behaviour(fails=True)
    until(begun(sim), 25)
    sim.run(20)
    sim.behaviours.clear()
    for name in again:
        assert stables(sim) == OLD
        sim.put("Override", override(f"again-{name}", name, "Retry", kind="Gate", revision=2))
        sim.run(10)
    sim.run(25)
    assert stables(sim) == NEW
    states = [sim.bodies["Override", f"again-{name}"]["status"]["state"] for name in TRIED]
    assert states == ["Done", "Done"]


MEMBERS = [("Gate", "first"), ("Gate", "second"), ("Expert", "e0"), ("Expert", "e1")]


@pytest.mark.parametrize(("kind", "name"), MEMBERS)
@pytest.mark.parametrize("action", ["Abort", "Promote"])
@pytest.mark.parametrize("percent", [0, 25])
def test_what_a_person_asks_of_one_is_done_to_all(
    kind: str, name: str, action: str, percent: int
) -> None:
    sim = served()
    if not percent:
        sim.behaviours[sha("first", "g2")] = Behaviour(starts=False)
    begun(sim)
    while row(sim, "e1").candidate is None or weight(sim) < percent:
        sim.tick()
    assert weight(sim) == percent
    before = epoch(sim)
    sim.put("Override", override("now", name, action, kind=kind, revision=2, requestedBy="ann"))
    sim.operate()
    assert epoch(sim) == before + 1
    assert stables(sim) == (OLD if action == "Abort" else NEW)
    assert {rollout.by for rollout in rollouts(sim)} == {"ann"}
    assert sim.bodies["Override", "now"]["status"]["state"] == "Done"


@pytest.mark.parametrize(("kind", "name"), MEMBERS)
def test_a_pause_of_one_holds_all(kind: str, name: str) -> None:
    sim = until(begun(served()), 25)
    instead_of = "g2" if kind == "Gate" else "v2"
    sim.put("Override", override("wait", name, "Pause", kind=kind, insteadOf=instead_of))
    sim.run(12)
    assert weight(sim) == 25
    assert {rollout.outcome for rollout in rollouts(sim)} == {Outcome.PAUSED}
    sim.remove("Override", "wait")
    sim.run(20)
    assert stables(sim) == NEW


def set_back(sim: Simulation) -> None:
    put_gate(sim, "second", "g1", "v1")


def serve_again(sim: Simulation) -> None:
    body = override("back", "second", "Serve", kind="Gate", version="g1", insteadOf="g2")
    sim.put("Override", body)


def serve_expert(sim: Simulation) -> None:
    sim.put("Override", override("back", "e0", "Serve", version="v1", insteadOf="v2"))


@pytest.mark.parametrize("act", [set_back, serve_again, serve_expert])
def test_who_leaves_in_the_middle_takes_all_of_them_back(act: Act) -> None:
    sim = until(begun(served()), 25)
    act(sim)
    sim.operate()
    assert stables(sim) == OLD
    assert weight(sim) == 0
    sim.run(12)
    assert stables(sim) == OLD
    assert weight(sim) == 0


@pytest.mark.parametrize("act", [serve_again, serve_expert])
def test_what_an_override_took_back_is_tried_again_without_it(act: Act) -> None:
    sim = until(begun(served()), 25)
    act(sim)
    sim.run(8)
    assert stables(sim) == OLD
    sim.remove("Override", "back")
    sim.run(30)
    assert stables(sim) == NEW


@pytest.mark.parametrize("act", [set_back, serve_again])
def test_one_gate_takes_all_back_also_when_they_are_promoted(act: Act) -> None:
    sim = promoted(served())
    before = epoch(sim)
    act(sim)
    sim.look()
    assert stables(sim) == OLD
    assert epoch(sim) == before + 1
    assert [of.previous for of in rows(sim)] == [None] * 4
    assert {names(sim, f"session {n}", before) for n in range(40)} == {OLD}
    sim.run(8)
    assert says(sim, "Expert", "e0")[0] == "Held"
    assert stables(sim) == OLD


def test_an_epoch_that_is_brought_back_brings_all_of_them_back() -> None:
    sim = served()
    kept = epoch(sim)
    until(begun(sim), 25)
    body = restore(kept, e0="v2", e1="v2", gate="g2")
    of_gates = [{"kind": "Gate", "name": name, "insteadOf": "g2"} for name in TRIED]
    body["spec"]["replaces"] = [*body["spec"]["replaces"][:2], *of_gates]
    sim.put("Override", body)
    sim.run(4)
    assert stables(sim) == OLD
    assert weight(sim) == 0
    sim.remove("Override", "back")
    sim.run(30)
    assert stables(sim) == NEW


@pytest.mark.parametrize(("bits", "expected"), [(0.0, NEW), (0.5, OLD)])
def test_the_golden_set_is_read_once_by_old_and_new_versions_of_all(
    bits: float, expected: tuple[str, ...]
) -> None:
    sim, asked = served(**evaluated()), set()
    sim.behaviours[sha("first", "g2")] = Behaviour(golden=(bits, 0.01))
    begun(sim)
    for _ in range(40):
        sim.tick()
        asked |= {pod.environment["MOE_EVAL_BESIDE"] for pod in sim.evaluators.values()}
    others = {"e0": ("e0", "v"), "e1": ("e1", "v"), "gate/second": ("second", "g")}
    beside = (f"{name}={sha(of, v + '1')}:{sha(of, v + '2')}" for name, (of, v) in others.items())
    assert asked == {",".join(beside)}
    (made,) = [write for write in sim.writes if write.startswith("create")]
    assert made.startswith("create first-gate-eval-2-")
    assert stables(sim) == expected
    if expected == OLD:
        assert {rollout.weights for rollout in rollouts(sim)} == {()}


def test_what_is_left_goes_on_without_a_gate_that_is_deleted() -> None:
    sim = until(begun(served()), 25)
    sim.remove("Gate", "first")
    sim.run(30)
    assert sim.stored is not None
    assert [found.stable.version for found in sim.stored.table.gates] == ["g2"]
    assert (stable(sim, "e0"), stable(sim, "e1")) == ("v2", "v2")


def test_a_gate_that_joins_in_the_shadow_is_one_of_them() -> None:
    """e1 is asked for later, by other `versions` of a gate that is tried out with e0 already."""
    sim = served(replicas=1)
    sim.behaviours[sha("first", "g2")] = Behaviour(starts=False)
    sim.want("e0", "v2")
    first(sim)
    second(sim)
    body = sim.bodies["Gate", "second"]
    body["spec"]["experts"][1] = {"id": "e1"}
    while row(sim, "e0").candidate is None:
        sim.tick()
    second(sim)
    sim.want("e1", "v2")
    sim.run(8)
    assert row(sim, "e1").candidate is not None
    sim.behaviours.clear()
    sim.run(25)
    assert stables(sim) == NEW


@pytest.mark.parametrize("of_writes", [0, 1])
def test_a_death_after_any_write_changes_nothing(of_writes: int) -> None:
    def story(die_after: int | None) -> Simulation:
        sim = served(replicas=1)
        sim.traffic, sim.die_after = 3, die_after
        for act in (first, experts, second):
            act(sim)
            sim.run(2)
        return sim.run(16)

    lived, begun_at = story(None), len(served(replicas=1).writes)
    assert stables(lived) == NEW
    for write in range(begun_at + of_writes, len(lived.writes), 2):
        sim = story(write)
        assert sim.die_after is None
        assert stables(sim) == NEW
        assert sim.writes.count("table") == lived.writes.count("table")
        assert deployments(sim) == {sha("e0", "v2"): 1}
