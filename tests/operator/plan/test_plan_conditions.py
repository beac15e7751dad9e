"""What is wrong with a spec, or between objects, ends as a condition with a sentence."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from moe_operator.drift import Detector, History
from moe_operator.plan import plan_mixture
from moe_operator.spec import Meta
from moe_operator.world import Invalid
from tests.operator.plan.bodies import expert, gate, mixture, override, sha, versioned
from tests.operator.plan.looks import condition, row, stable, started
from tests.operator.plan.simulation import SETTINGS, Behaviour, Simulation


def put_gate(sim: Simulation, *experts: str, **spec: Any) -> None:
    sim.put("Gate", gate(experts, **spec))


def served_gate(sim: Simulation) -> tuple[str, tuple[str, ...]]:
    assert sim.stored is not None
    found = sim.stored.table.gates[0]
    return found.stable.version, found.experts


def test_of_two_experts_with_one_id_the_older_counts() -> None:
    sim = started()
    younger = expert("e9", created=9)
    younger["spec"]["expertId"] = "e0"
    sim.put("Expert", younger)
    sim.run(3)
    assert condition(sim, "Expert", "e9", "Ready") == (
        "False",
        "Conflict",
        "spec.expertId e0 is that of the older Expert e0",
    )
    assert row(sim).name == "e0"
    sim.remove("Expert", "e0")
    sim.run(8)
    assert (row(sim).name, stable(sim)) == ("e9", "v1")


def test_layers_that_the_mixture_has_not() -> None:
    sim = started()
    sim.put("Expert", expert("e2", layers=[1, 2, 7]))
    sim.run(2)
    assert condition(sim, "Expert", "e2", "Ready") == (
        "False",
        "InvalidSpec",
        "spec.layers names 2, 7; the mixture has 0 to 1",
    )
    assert sim.stored is not None
    assert sim.stored.table.expert("e2") is None


def test_layers_of_what_is_served_wait_for_the_next_version() -> None:
    sim = started()
    sim.change("e0", layers=[0])
    sim.run(2)
    assert row(sim).layers == (0, 1)
    assert condition(sim, "Expert", "e0", "Degraded")[:2] == ("True", "LayersPending")
    sim.remove("Gate", "gate")
    put_gate(sim, "e0", "e1", name="first", layers=[0])
    sim.want("e0", "v2")
    sim.run(20)
    assert row(sim).layers == (0,)


def test_a_backup_that_does_not_exist() -> None:
    sim = started(backupExpertId="e5")
    assert row(sim).backup is None
    assert condition(sim, "Expert", "e0", "Degraded") == (
        "True",
        "BackupMissing",
        "no Expert has the id e5 of spec.backupExpertId",
    )
    sim.put("Expert", expert("e5"))
    sim.run(2)
    assert row(sim).backup == "e5"


def test_experts_without_a_mixture() -> None:
    sim = Simulation()
    sim.put("Expert", expert("e0"))
    sim.run(2)
    assert condition(sim, "Expert", "e0", "Ready") == (
        "False",
        "MixtureMissing",
        "there is no Mixture tiny in models",
    )
    assert sim.writes == ["status Expert e0"]


def test_a_gate_waits_for_experts_and_names_them() -> None:
    sim = Simulation()
    sim.put("Mixture", mixture())
    sim.put("Expert", expert("e0"))
    put_gate(sim, "e0", "e7")
    sim.run(8)
    assert condition(sim, "Gate", "gate", "Ready") == (
        "False",
        "ExpertsMissing",
        "no Expert has the id e7",
    )
    assert condition(sim, "Mixture", "tiny", "Ready")[:2] == ("False", "GateMissing")
    sim.put("Expert", expert("e7"))
    sim.tick()
    assert condition(sim, "Gate", "gate", "Progressing")[:2] == ("True", "ExpertsNotReady")
    sim.run(5)
    assert served_gate(sim) == ("g1", ("e0", "e7"))


def test_a_new_gate_comes_in_one_epoch_with_all_its_experts() -> None:
    sim = started()
    put_gate(sim, "e0", "e1", "e2", version="g2")
    sim.put("Expert", expert("e2"))
    while served_gate(sim)[0] == "g1":
        assert sim.stored is not None
        epoch = sim.stored.table.epoch
        sim.tick()
    assert sim.stored is not None
    assert served_gate(sim) == ("g2", ("e0", "e1", "e2"))
    assert sim.stored.table.epoch == epoch + 1
    assert condition(sim, "Gate", "gate", "Progressing")[1] == "Complete"


def test_of_two_gates_for_one_layer_the_older_counts() -> None:
    sim = started()
    sim.put("Gate", gate(["e0"], name="late", created=9, layers=[1]))
    sim.run(2)
    assert condition(sim, "Gate", "late", "Ready") == (
        "False",
        "Conflict",
        "layer 1 is that of the older Gate gate",
    )


def test_a_gate_for_layers_that_an_expert_does_not_serve() -> None:
    sim = started()
    sim.put("Expert", expert("e2", layers=[0]))
    sim.run(6)
    put_gate(sim, "e0", "e2", version="g2")
    sim.run(2)
    assert condition(sim, "Gate", "gate", "Progressing") == (
        "False",
        "InvalidSpec",
        "e2 does not serve all layers of this gate",
    )
    assert served_gate(sim)[0] == "g1"


def test_an_expert_that_no_gate_names_any_more_is_free() -> None:
    sim = started()
    put_gate(sim, "e0", version="g2")
    sim.run(3)
    assert sim.bodies["Expert", "e1"]["status"]["inUse"] is True
    sim.run(9)
    assert sim.bodies["Expert", "e1"]["status"]["inUse"] is False
    sim.remove("Expert", "e1")
    sim.run(2)
    assert sim.stored is not None
    assert sim.stored.table.expert("e1") is None


@pytest.mark.parametrize("kind", ["Expert", "Gate"])
def test_an_object_that_cannot_be_read_keeps_what_it_serves(kind: str) -> None:
    sim = started()
    world, name = sim.world(), {"Expert": "e0", "Gate": "gate"}[kind]
    meta = Meta.from_body(sim.bodies[kind, name])
    broken = replace(
        world,
        experts=tuple(e for e in world.experts if (kind, e.meta.name) != ("Expert", name)),
        gates=tuple(g for g in world.gates if (kind, g.meta.name) != ("Gate", name)),
        invalid=(Invalid(kind, meta, "spec.version is 3; it must be text"),),
    )
    plan = plan_mixture(broken, {}, SETTINGS, sim.now)
    assert plan.table is None
    assert plan.deletes == ()
    status = next(s.status for s in plan.statuses if (s.kind, s.name) == (kind, name))
    assert status["inUse"] is True
    assert status["conditions"][0]["message"] == "spec.version is 3; it must be text"


def test_a_mixture_that_cannot_be_read_changes_nothing() -> None:
    sim = started()
    invalid = Invalid("Mixture", Meta.from_body(sim.bodies["Mixture", "tiny"]), "spec.layers is 0")
    broken = replace(sim.world(), mixture=None, invalid=(invalid,))
    plan = plan_mixture(broken, {}, SETTINGS, sim.now)
    assert (plan.table, plan.deletes) == (None, ())
    assert [s.name for s in plan.statuses] == ["tiny"]
    assert plan.statuses[0].status["conditions"][0]["message"] == "spec.layers is 0"
    assert "inUse" not in plan.statuses[0].status


def test_an_override_that_cannot_be_read_is_refused() -> None:
    sim = started()
    meta = Meta.from_body(override("odd", "e0", "Serve"))
    broken = replace(sim.world(), invalid=(Invalid("Override", meta, "spec.version is missing"),))
    plan = plan_mixture(broken, {}, SETTINGS, sim.now)
    assert plan.table is None
    said = {"state": "Refused", "message": "spec.version is missing", "observedGeneration": 1}
    assert [s.status for s in plan.statuses] == [said]


def test_no_room_for_a_candidate_is_unschedulable() -> None:
    sim = started()
    sim.behaviours[sha("e0", "v2")] = Behaviour(starts=False)
    sim.want("e0", "v2")
    sim.run(3)
    world = sim.world()
    problem = "Unschedulable: 0/3 nodes are available: 3 Insufficient cpu."
    pods = tuple(
        replace(p, problem=problem) if p.digest == sha("e0", "v2")[:10] else p for p in world.pods
    )
    plan = plan_mixture(replace(world, pods=pods), {}, SETTINGS, sim.now)
    status = next(s.status for s in plan.statuses if s.name == "e0")
    found = next(c for c in status["conditions"] if c["type"] == "Progressing")
    assert (found["status"], found["reason"]) == ("False", "Unschedulable")
    assert "Insufficient cpu" in found["message"]
    assert plan.table is None


def test_variables_that_are_the_operators_are_named() -> None:
    sim = started()
    sim.put("Mixture", mixture(workers={"env": [{"name": "MOE_LINK", "value": "x"}]}))
    sim.run(2)
    status, reason, message = condition(sim, "Mixture", "tiny", "Degraded")
    assert (status, reason) == ("True", "SettingsIgnored")
    assert "MOE_LINK" in message


def test_another_name_for_the_same_artifact_is_no_rollout() -> None:
    sim = started()
    sim.change("e0", version="v1-final", artifact=versioned("e0", "v1")["artifact"])
    sim.run(3)
    assert stable(sim) == "v1-final"
    assert row(sim).candidate is None


def test_the_time_of_a_transition_stays_while_the_status_does() -> None:
    sim = started()

    def since() -> str:
        conditions = sim.bodies["Expert", "e0"]["status"]["conditions"]
        return next(str(c["lastTransitionTime"]) for c in conditions if c["type"] == "Ready")

    before = since()
    sim.change("e0", replicas=2)
    sim.run(10)
    assert since() == before
    sim.change("e0", replicas=0)
    sim.run(5)
    assert since() > before


def test_people_are_told_of_steps_and_of_what_stops_serving() -> None:
    sim = started()
    sim.told.clear()
    sim.want("e0", "v2")
    sim.run(20)
    reasons = [note.reason for note in sim.told if note.name == "e0"]
    assert reasons == ["Started", "WeightRaised", "WeightRaised", "Promoted"]
    sim.told.clear()
    sim.kill_pods(sha("e0", "v2"))
    sim.operate()
    assert [(n.reason, n.warning) for n in sim.told] == [
        ("NotRoutable", True),
        ("PodsNotReady", True),
    ]
    sim.run(6)
    assert [(n.reason, n.warning) for n in sim.told[2:]] == [
        ("Serving", False),
        ("AsWanted", False),
    ]


def drifted(psi: float) -> History:
    return History(whole_window=True, alarms={Detector.DRIFTING: f"PSI {psi}"})


def test_a_drift_that_comes_or_goes_is_an_event_and_numbers_alone_are_not_even_written() -> None:
    sim = started()
    layer = {"layer": 0, "effectivePairs": 9, "pairs": [1, 2]}
    baselines = [{"sha256": sha("gate", "g1"), "layers": [layer]}]
    put_gate(sim, "e0", "e1", drift={"baselines": baselines})
    sim.run(3)
    told: list[list[tuple[bool, str, str]]] = []
    for history in (History(), History(whole_window=True), drifted(0.4), drifted(0.5), History()):
        world = replace(sim.world(), drifts={("gate", sha("gate", "g1")): history})
        plan = plan_mixture(world, {}, SETTINGS, sim.now)
        told.append([(n.warning, n.reason, n.message) for n in plan.notes])
        for status in plan.statuses:
            place = status.kind, status.name
            sim.bodies[place] = {**sim.bodies[place], "status": dict(status.status)}
        if history == drifted(0.5):
            assert plan.statuses == ()
    assert told == [[], [], [(True, "RoutingShifted", "PSI 0.4")], [], []]
    world = replace(sim.world(), drifts={("gate", sha("gate", "g1")): History(whole_window=True)})
    (note,) = plan_mixture(world, {}, SETTINGS, sim.now).notes
    assert (note.warning, note.reason) == (False, "WithinLimits")
