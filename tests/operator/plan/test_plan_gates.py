"""Gates on trial: shadow, canary, promotion, and every way back."""

from __future__ import annotations

from typing import Any

import pytest

from moe_core.pins import pinned
from moe_core.rollout import Outcome
from moe_core.rows import GateRow
from tests.operator.plan.bodies import QUICK_GATE, evaluated, expert, gate, mixture, override, sha
from tests.operator.plan.looks import condition, deployments, row
from tests.operator.plan.simulation import Behaviour, Simulation


def started(*experts: str, **spec: Any) -> Simulation:
    """Return a mixture whose gate g1 knows e0 and e1."""
    sim = Simulation(traffic=4)
    sim.put("Mixture", mixture(routers={"replicas": 2}, **spec))
    for name in ("e0", "e1", *experts):
        sim.put("Expert", expert(name))
    sim.put("Gate", gate(["e0", "e1"], "g1"))
    return sim.run(8)


def want(sim: Simulation, version: str, *experts: str, **spec: Any) -> None:
    """Let people ask for another version of the gate."""
    known = sim.bodies["Gate", "gate"]
    body = gate(experts or ("e0", "e1"), version, **spec)
    sim.put("Gate", {**known, "spec": body["spec"]})


def served(sim: Simulation) -> GateRow:
    assert sim.stored is not None
    return sim.stored.table.gates[0]


def says(sim: Simulation) -> tuple[str, str, str]:
    return condition(sim, "Gate", "gate", "Progressing")


def status(sim: Simulation) -> dict[str, Any]:
    found: dict[str, Any] = sim.bodies["Gate", "gate"]["status"]
    return found


def until(sim: Simulation, phase: str, seconds: int = 30) -> None:
    for _ in range(seconds):
        sim.tick()
        if status(sim)["phase"] == phase:
            return
    raise AssertionError(f"{status(sim)['phase']}: {says(sim)}")


def test_the_first_version_is_served_at_once() -> None:
    sim = started()
    assert served(sim).stable.version == "g1"
    assert served(sim).rollout is None
    assert sorted(r for r in sim.revisions if "gate" in r) == ["gate.gate-1"]


def test_a_new_version_goes_from_the_shadow_to_some_sessions_to_all() -> None:
    sim = started()
    want(sim, "g2")
    seen: list[tuple[str, str, str]] = []
    for _ in range(12):
        sim.tick()
        state = status(sim)["phase"], status(sim).get("weight", ""), served(sim).stable.version
        if not seen or seen[-1] != state:
            seen.append(state)
    assert seen == [("Shadow", "0%", "g1"), ("Canary", "50%", "g1"), ("Serving", "", "g2")]
    (entry,) = status(sim)["history"]
    assert (entry["revision"], entry["version"], entry["outcome"]) == (2, "g2", "Promoted")
    names = [finding["name"] for finding in status(sim)["rollout"].get("evidence", [])]
    assert names == []
    assert served(sim).previous is None


def test_a_session_keeps_its_gate_through_weights_and_promotion() -> None:
    sim = started()
    want(sim, "g2")
    until(sim, "Canary")
    assert sim.stored is not None
    began, names = sim.stored.table.epoch, [f"s{n}" for n in range(40)]
    first = {name: pinned(served(sim), name, began).version for name in names}
    assert set(first.values()) == {"g1", "g2"}
    until(sim, "Serving")
    assert served(sim).previous is not None
    assert {name: pinned(served(sim), name, began).version for name in names} == first


def test_a_gate_that_sends_everything_to_one_expert_never_gets_weight() -> None:
    sim = started()
    sim.behaviours[sha("gate", "g2")] = Behaviour(first_percent=99)
    want(sim, "g2")
    until(sim, "RolledBack")
    said = status(sim)["rollout"]["message"]
    assert said.startswith("g2 was taken back: in layer 0 e0 would get 98.8% of tokens against 50")
    found = served(sim)
    assert found.rollout is not None
    assert (found.stable.version, found.rollout.weights) == ("g1", ())
    assert found.revoked == (sha("gate", "g2"),)
    sim.run(20)
    assert served(sim) == found


def test_a_limit_of_ones_own_for_overlap_and_divergence() -> None:
    sim = started()
    analysis = {"minShadowRows": 20, "minOverlapPercent": 60}
    want(sim, "g2", rollout={**QUICK_GATE, "analysis": analysis})
    until(sim, "RolledBack")
    assert "50.0% of the chosen experts are those of stable" in says(sim)[2]
    analysis = {"minShadowRows": 20, "maxDivergenceMillibits": 199}
    want(sim, "g3", rollout={**QUICK_GATE, "analysis": analysis})
    sim.run(8)
    assert "the choice diverges by 0.200 bits" in says(sim)[2]


def test_without_traffic_it_stays_in_the_shadow_and_is_paused_not_failed() -> None:
    sim = started()
    sim.traffic = 0
    want(sim, "g2", rollout={**QUICK_GATE, "evidenceDeadlineSeconds": 10})
    sim.run(14)
    assert says(sim)[:2] == ("False", "EvidenceMissing")
    assert status(sim)["phase"] == "Paused"
    sim.traffic = 4
    until(sim, "Serving")
    assert served(sim).stable.version == "g2"


def test_what_routers_refuse_is_taken_back_with_their_sentence() -> None:
    sim = started()
    sim.behaviours[sha("gate", "g2")] = Behaviour(refused="it lists e0, e9; the table says e0, e1")
    want(sim, "g2")
    until(sim, "ArtifactRefused")
    assert says(sim)[2] == "g2: it lists e0, e9; the table says e0, e1"
    assert served(sim).stable.version == "g1"


def test_what_routers_cannot_load_in_time_is_taken_back() -> None:
    sim = started()
    sim.behaviours[sha("gate", "g2")] = Behaviour(starts=False)
    want(sim, "g2", rollout={**QUICK_GATE, "progressDeadlineSeconds": 10})
    sim.run(8)
    assert says(sim)[:2] == ("True", "Canary")
    sim.run(6)
    assert "0 of 2 routers have loaded it" in says(sim)[2]
    assert served(sim).candidate is None


def test_requests_that_fail_take_it_back() -> None:
    sim = started()
    sim.behaviours[sha("gate", "g2")] = Behaviour(fails=True)
    want(sim, "g2", rollout={**QUICK_GATE, "minRequests": 10})
    sim.run(20)
    found = served(sim)
    assert found.rollout is not None
    assert found.rollout.outcome is Outcome.ROLLED_BACK
    assert "attempts failed" in found.rollout.reason


@pytest.mark.parametrize(("bits", "outcome"), [(0.0, "Promoted"), (0.5, "RolledBack")])
def test_the_golden_set_is_read_before_the_first_weight(bits: float, outcome: str) -> None:
    sim = started(**evaluated())
    sim.behaviours[sha("gate", "g2")] = Behaviour(golden=(bits, 0.01))
    want(sim, "g2")
    until(sim, "Canary" if outcome == "Promoted" else "RolledBack")
    (made,) = [w for w in sim.writes if w.startswith("create gate-gate-eval-2-")]
    assert made.endswith("-1")
    until(sim, "Serving" if outcome == "Promoted" else "RolledBack")
    assert served(sim).stable.version == ("g2" if outcome == "Promoted" else "g1")
    assert not sim.evaluators


def test_sessions_say_that_it_is_worse() -> None:
    sim = started()
    sim.traffic, sim.reporting = 40, True
    sim.behaviours[sha("gate", "g2")] = Behaviour(bits=2.5)
    want(sim, "g2")
    until(sim, "RolledBack")
    assert "outcomes: +0.5" in says(sim)[2]


@pytest.mark.parametrize("phase", ["Shadow", "Canary"])
def test_an_abort_and_a_retry(phase: str) -> None:
    sim = started()
    want(sim, "g2", rollout={**QUICK_GATE, "analysis": {"minShadowRows": 400}})
    until(sim, phase)
    sim.put("Override", override("stop", "gate", "Abort", kind="Gate", revision=2))
    sim.operate()
    assert served(sim).candidate is None
    assert sim.bodies["Override", "stop"]["status"]["state"] == "Done"
    assert says(sim)[1] == "Aborted"
    sim.put("Override", override("again", "gate", "Retry", kind="Gate", revision=2))
    until(sim, "Serving", 60)
    assert served(sim).stable.version == "g2"
    assert sim.bodies["Override", "again"]["status"]["state"] == "Done"


def test_a_pause_holds_it_and_a_promotion_goes_past_the_evidence() -> None:
    sim = started()
    sim.put("Override", override("wait", "gate", "Pause", kind="Gate", insteadOf="g2"))
    want(sim, "g2")
    sim.run(10)
    assert status(sim)["phase"] == "Paused"
    assert served(sim).stable.version == "g1"
    sim.put("Override", override("go", "gate", "Promote", kind="Gate", revision=2))
    sim.operate()
    assert served(sim).stable.version == "g2"


def test_a_person_goes_back_in_one_epoch_and_no_session_stays_behind() -> None:
    sim = started()
    want(sim, "g2")
    until(sim, "Serving")
    sim.run(10)
    assert sim.stored is not None
    began = sim.stored.table.epoch
    sim.put(
        "Override", override("back", "gate", "Serve", kind="Gate", version="g1", insteadOf="g2")
    )
    sim.operate()
    assert sim.stored.table.epoch == began + 1
    found = served(sim)
    assert (found.stable.version, found.revoked) == ("g1", (sha("gate", "g2"),))
    assert {pinned(found, f"s{n}", began).version for n in range(20)} == {"g1"}
    assert says(sim)[:2] == ("False", "Overridden")
    sim.remove("Override", "back")
    until(sim, "Serving")
    sim.run(12)
    assert served(sim).stable.version == "g2"


def test_the_spec_set_back_in_the_middle_is_an_abort() -> None:
    sim = started()
    want(sim, "g2")
    until(sim, "Canary")
    want(sim, "g1")
    sim.operate()
    found = served(sim)
    assert (found.stable.version, found.candidate) == ("g1", None)
    assert found.rollout is not None
    assert found.rollout.outcome is Outcome.ABORTED


def test_an_expert_that_is_added_is_waited_for_and_comes_with_the_gate() -> None:
    sim = started()
    want(sim, "g2", "e0", "e1", "e2")
    sim.run(6)
    assert says(sim)[:2] == ("False", "ExpertsMissing")
    assert served(sim).rollout is None
    sim.put("Expert", expert("e2"))
    sim.run(1)
    assert says(sim)[1] == "ExpertsNotReady"
    until(sim, "Shadow")
    assert sim.bodies["Expert", "e2"]["status"]["inUse"] is True
    until(sim, "Serving")
    assert served(sim).stable.experts == ("e0", "e1", "e2")


def test_a_rollback_brings_back_the_experts_with_the_gate() -> None:
    sim = started("e2")
    want(sim, "g2", "e0", "e2")
    until(sim, "Canary")
    assert [v.experts for v in served(sim).named] == [("e0", "e1"), ("e0", "e2")]
    want(sim, "g1")
    sim.operate()
    assert [v.experts for v in served(sim).named] == [("e0", "e1")]
    assert sim.stored is not None
    assert sim.stored.table.expert("e1") is not None


def test_an_expert_waits_while_a_gate_is_on_trial() -> None:
    sim = started()
    want(sim, "g2")
    until(sim, "Canary")
    sim.want("e0", "v2")
    sim.run(1)
    assert condition(sim, "Expert", "e0", "Progressing")[1:] == (
        "WouldConfound",
        "v2 waits until Gate gate has changed",
    )
    sim.run(70)
    found = row(sim).stable
    assert found is not None
    assert found.version == "v2"


def test_one_gate_at_a_time() -> None:
    sim = Simulation(traffic=4)
    sim.put("Mixture", mixture(routers={"replicas": 1}))
    for name in ("e0", "e1"):
        sim.put("Expert", expert(name))
    for layer in (0, 1):
        sim.put("Gate", gate(["e0", "e1"], name=f"gate-{layer}", layers=[layer]))
    sim.run(8)
    for layer in (0, 1):
        name = f"gate-{layer}"
        body = gate(["e0", "e1"], "g2", name=name, layers=[layer])
        sim.put("Gate", {**sim.bodies["Gate", name], "spec": body["spec"]})
    assert sim.stored is not None
    for _ in range(20):
        sim.tick()
        assert sum(g.candidate is not None for g in sim.stored.table.gates) <= 1
    assert [g.stable.version for g in sim.stored.table.gates] == ["g2", "g2"]


def test_what_no_gate_lists_stays_warm_for_a_while_then_goes_and_may_be_deleted() -> None:
    sim = started("e2")
    sim.change("e1", rollout={"scaleDownDelaySeconds": 6})
    want(sim, "g2", "e0", "e2")
    until(sim, "Serving")
    while served(sim).previous is not None:
        sim.tick()
    sim.run(2)
    assert deployments(sim, "e1") == {sha("e1", "v1"): 1}
    assert condition(sim, "Expert", "e1", "Ready")[:2] == ("False", "NotListed")
    assert sim.bodies["Expert", "e1"]["status"]["phase"] == "Removable"
    assert sim.bodies["Expert", "e1"]["status"]["inUse"] is False
    sim.run(8)
    assert deployments(sim, "e1") == {sha("e1", "v1"): 0}
    assert condition(sim, "Expert", "e1", "Degraded")[0] == "False"
    looks = sim.look()
    assert looks.table is None
    sim.remove("Expert", "e1")
    sim.run(2)
    assert sim.stored is not None
    assert sim.stored.table.expert("e1") is None


def test_a_gate_that_lists_it_again_waits_until_it_is_warm() -> None:
    sim = started("e2")
    sim.change("e1", rollout={"scaleDownDelaySeconds": 0})
    want(sim, "g2", "e0", "e2")
    until(sim, "Serving")
    sim.run(8)
    assert deployments(sim, "e1") == {sha("e1", "v1"): 0}
    want(sim, "g1")
    sim.run(1)
    assert says(sim)[1] == "ExpertsNotReady"
    assert deployments(sim, "e1") == {sha("e1", "v1"): 1}
    until(sim, "Serving")
    assert served(sim).stable.version == "g1"
    assert condition(sim, "Expert", "e1", "Ready")[:2] == ("True", "Serving")


def test_a_backup_is_needed_also_where_no_gate_lists_it() -> None:
    sim = started("e2")
    sim.change("e0", backupExpertId="e1")
    sim.change("e1", rollout={"scaleDownDelaySeconds": 0})
    want(sim, "g2", "e0", "e2")
    until(sim, "Serving")
    sim.run(8)
    assert deployments(sim, "e1") == {sha("e1", "v1"): 1}
    assert row(sim, "e1").idle_since == ""


def test_an_expert_that_is_made_again_pushes_no_gate_past_its_shadow() -> None:
    sim = started()
    sim.behaviours[sha("gate", "g2")] = Behaviour(first_percent=99)
    sim.traffic = 0
    want(sim, "g2")
    until(sim, "Shadow")
    sim.remove("Expert", "e1")
    sim.run(2)
    again = expert("e1", created=30)
    again["metadata"]["uid"] = "uid-again"
    sim.put("Expert", again)
    for _ in range(8):
        sim.tick()
        assert served(sim).stable.version == "g1"
    sim.traffic = 4
    until(sim, "RolledBack")
    assert served(sim).stable.version == "g1"


def test_an_expert_that_is_gone_from_under_a_gate_is_named_and_what_is_served_goes_on() -> None:
    sim = started()
    before = served(sim)
    sim.remove("Expert", "e1")
    sim.run(3)
    assert served(sim) == before
    assert says(sim) == ("False", "ExpertsMissing", "no Expert has the id e1: g1 is served without")
    assert condition(sim, "Gate", "gate", "Ready")[0] == "True"
    again = expert("e1", created=30)
    again["metadata"]["uid"] = "uid-again"
    sim.put("Expert", again)
    sim.run(5)
    assert says(sim)[:2] == ("True", "Complete")
