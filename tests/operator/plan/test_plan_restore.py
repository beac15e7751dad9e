"""A whole epoch is brought back by one Override of the Mixture, and kept to be brought back."""

from __future__ import annotations

from typing import Any

import pytest

from moe_core.document import InvalidDocument
from moe_core.rollout import Outcome
from moe_core.table import Table
from moe_operator.epochs import next_epoch
from moe_operator.override_spec import OverrideSpec
from tests.operator.plan.bodies import MIXTURE, gate, mixture, override, restore
from tests.operator.plan.looks import condition, outcome, row, stable, started, until_weight
from tests.operator.plan.simulation import Simulation


def table(sim: Simulation) -> Table:
    assert sim.stored is not None
    return sim.stored.table


def state(sim: Simulation, name: str = "back") -> tuple[str, str]:
    status = sim.bodies["Override", name]["status"]
    return status["state"], status["message"]


def promote(sim: Simulation, version: str, *names: str) -> Simulation:
    """Let versions be wanted, and go on until each is served."""
    for name in names:
        sim.want(name, version)
    for _ in range(60):
        if all(stable(sim, name) == version for name in names):
            return sim
        sim.tick()
    raise AssertionError(f"{version} is not served")


def first_epoch(sim: Simulation) -> int:
    return min(kept.epoch for kept in sim.snapshots.values())


def decide(sim: Simulation, body: dict[str, Any]) -> int:
    """Let somebody decide; return by how many epochs the table moved on at once."""
    before = table(sim).epoch
    sim.put("Override", body)
    sim.operate()
    return table(sim).epoch - before


def test_each_epoch_that_changed_a_stable_is_kept_once_and_as_it_was_served() -> None:
    sim = started()
    assert [k.experts["e0"].version for k in sim.snapshots.values()] == ["v1"]
    promote(sim, "v2", "e0")
    sim.run(20)
    sim.put("Gate", gate(["e0", "e1"], "g2"))
    sim.run(12)
    kept = sorted(sim.snapshots.values(), key=lambda k: k.epoch)
    said = [(k.experts["e0"].version, k.gates[0].stable.version) for k in kept]
    assert said == [("v1", "g1"), ("v2", "g1"), ("v2", "g2")]
    assert [row.stable for row in kept[-1].gates] == [row.stable for row in table(sim).gates]
    written = [w for w in sim.writes if w.startswith(f"revision {MIXTURE}.")]
    assert written == [f"revision {MIXTURE}.{k.epoch}" for k in kept]


def test_warm_versions_come_back_in_one_epoch_and_stay_until_the_override_goes() -> None:
    sim = started(rollout={"scaleDownDelaySeconds": 120})
    sim.change("e1", rollout=sim.bodies["Expert", "e0"]["spec"]["rollout"])
    epoch = first_epoch(sim)
    promote(sim, "v2", "e0", "e1")
    assert decide(sim, restore(epoch, e0="v2", e1="v2")) == 1
    assert [stable(sim, e) for e in ("e0", "e1")] == ["v1", "v1"]
    assert state(sim) == ("Active", f"what epoch {epoch} served is served")
    status, reason, message = condition(sim, "Expert", "e0", "Progressing")
    assert (status, reason) == ("False", "Overridden")
    assert "v1 is served instead of v2: Override back by ann" in message
    sim.run(30)
    assert [stable(sim, e) for e in ("e0", "e1")] == ["v1", "v1"]
    sim.remove("Override", "back")
    sim.run(30)
    assert [stable(sim, e) for e in ("e0", "e1")] == ["v2", "v2"]


def test_a_cold_version_follows_as_soon_as_it_is_routable() -> None:
    sim = started(rollout={"scaleDownDelaySeconds": 120})
    epoch = first_epoch(sim)
    promote(sim, "v2", "e1")
    sim.run(20)
    promote(sim, "v2", "e0")
    decide(sim, restore(epoch, e0="v2", e1="v2"))
    assert [stable(sim, e) for e in ("e0", "e1")] == ["v1", "v2"]
    assert state(sim) == ("Pending", f"1 of 2 serve their version of epoch {epoch}; e1 waits")
    sim.run(6)
    assert [stable(sim, e) for e in ("e0", "e1")] == ["v1", "v1"]
    assert state(sim)[0] == "Active"


def test_a_gate_comes_back_whole_in_the_same_epoch_as_its_experts() -> None:
    sim = started(rollout={"scaleDownDelaySeconds": 120})
    epoch = first_epoch(sim)
    promote(sim, "v2", "e0")
    sim.put("Gate", gate(["e1", "e0"], "g2", policy={"type": "TopK", "topK": 1}))
    sim.run(12)
    assert decide(sim, restore(epoch, e0="v2", gate="g2")) == 1
    (served,) = table(sim).gates
    assert (served.stable.version, served.stable.experts, served.stable.top_k) == (
        "g1",
        ("e0", "e1"),
        2,
    )
    assert stable(sim) == "v1"
    assert condition(sim, "Gate", "gate", "Progressing")[1] == "Overridden"
    assert sim.bodies["Gate", "gate"]["status"]["phase"] == "Overridden"
    sim.remove("Override", "back")
    sim.run(12)
    assert table(sim).gates[0].stable.version == "g2"


def choosy(version: str, e0: str) -> dict[str, Any]:
    """Return a Gate that accepts one version of e0 only."""
    body = gate(["e0", "e1"], version)
    body["spec"]["experts"][0]["versions"] = [e0]
    return body


def test_a_gate_and_the_only_version_that_it_accepts_come_back_together() -> None:
    sim = started()
    sim.put("Gate", choosy("g1", "v1"))
    sim.run(3)
    epoch = max(kept.epoch for kept in sim.snapshots.values())
    sim.put("Gate", choosy("g2", "v2"))
    promote(sim, "v2", "e0")
    sim.run(12)
    served, before = table(sim).gates[0].stable.version, table(sim).epoch
    assert (served, decide(sim, restore(epoch, e0="v2", gate="g2"))) == ("g2", 0)
    while table(sim).epoch == before:
        sim.tick()
    assert (stable(sim), table(sim).gates[0].stable.version) == ("v1", "g1")
    assert state(sim) == ("Active", f"what epoch {epoch} served is served")
    assert condition(sim, "Expert", "e0", "Progressing")[1] == "Overridden"
    sim.remove("Override", "back")
    sim.run(30)
    assert (stable(sim), table(sim).gates[0].stable.version) == ("v2", "g2")


def test_an_expert_whose_version_no_gate_accepts_is_held_and_said_to_wait() -> None:
    sim = started()
    epoch = first_epoch(sim)
    promote(sim, "v2", "e0")
    sim.put("Gate", choosy("g2", "v2"))
    sim.run(12)
    decide(sim, restore(epoch, e0="v2"))
    sim.run(10)
    assert stable(sim) == "v2"
    assert state(sim) == ("Pending", f"0 of 1 serve their version of epoch {epoch}; e0 waits")
    assert condition(sim, "Expert", "e0", "Progressing")[1] == "Held"


def test_a_gate_that_is_brought_back_waits_for_no_rollout() -> None:
    sim = started()
    epoch = first_epoch(sim)
    sim.put("Gate", gate(["e1", "e0"], "g2"))
    sim.run(3)
    sim.want("e1", "v2")
    sim.run(4)
    assert decide(sim, restore(epoch, gate="g2")) == 1
    assert table(sim).gates[0].stable.version == "g1"


def test_a_gate_whose_expert_is_gone_waits_and_says_so() -> None:
    sim = started()
    epoch = first_epoch(sim)
    sim.put("Gate", gate(["e0"], "g2"))
    sim.run(12)
    sim.remove("Expert", "e1")
    sim.run(3)
    decide(sim, restore(epoch, gate="g2"))
    assert state(sim) == ("Pending", f"0 of 1 serve their version of epoch {epoch}; gate waits")
    assert table(sim).gates[0].stable.version == "g2"
    assert condition(sim, "Gate", "gate", "Progressing")[1] == "ExpertsMissing"


def test_it_lapses_for_an_expert_whose_spec_changed_and_says_so() -> None:
    sim = started()
    epoch = first_epoch(sim)
    promote(sim, "v2", "e0", "e1")
    decide(sim, restore(epoch, e0="v2", e1="v2"))
    sim.run(10)
    promote(sim, "v3", "e1")
    sim.run(10)
    assert [stable(sim, e) for e in ("e0", "e1")] == ["v1", "v3"]
    lapsed = "lapsed for e1: spec.version is v3, no longer v2"
    assert state(sim) == ("Active", f"what epoch {epoch} served is served; {lapsed}")
    told = [(n.name, n.reason, n.message) for n in sim.told if n.kind == "Override"]
    assert told == [("back", "Lapsed", lapsed)]
    promote(sim, "v3", "e0")
    assert state(sim)[0] == "Lapsed"
    assert len([n for n in sim.told if n.kind == "Override"]) == 2


def test_what_was_wanted_before_it_was_decided_is_not_held_back_unseen() -> None:
    """The person saw v2; v3 came in between."""
    sim = started()
    epoch = first_epoch(sim)
    promote(sim, "v2", "e0")
    sim.want("e0", "v3")
    decide(sim, restore(epoch, e0="v2"))
    assert state(sim) == ("Lapsed", "lapsed for e0: spec.version is v3, no longer v2")
    sim.run(30)
    assert stable(sim) == "v3"


def test_a_candidate_that_is_the_version_of_that_epoch_is_promoted() -> None:
    sim = started(rollout={"scaleDownDelaySeconds": 1})
    promote(sim, "v2", "e0")
    sim.run(10)
    epoch = max(k.epoch for k in sim.snapshots.values())
    promote(sim, "v1", "e0")
    sim.run(10)
    sim.want("e0", "v2")
    until_weight(sim, 25)
    assert decide(sim, restore(epoch, e0="v2")) == 1
    assert (stable(sim), outcome(sim)) == ("v2", Outcome.PROMOTED)
    rollout = row(sim).rollout
    assert rollout is not None
    assert (rollout.by, rollout.weight) == ("ann", 100)
    assert condition(sim, "Expert", "e0", "Progressing")[1] == "Complete"


def test_a_newer_override_of_the_expert_itself_counts() -> None:
    sim = started()
    epoch = first_epoch(sim)
    promote(sim, "v2", "e0")
    sim.run(10)
    promote(sim, "v3", "e0")
    decide(sim, restore(epoch, e0="v3"))
    decide(sim, override("newer", "e0", "Serve", version="v2", insteadOf="v3"))
    sim.run(6)
    assert stable(sim) == "v2"
    assert state(sim) == ("Lapsed", "lapsed for e0: Override newer is newer")
    sim.remove("Override", "newer")
    sim.run(6)
    assert (stable(sim), state(sim)[0]) == ("v1", "Active")


def test_an_epoch_that_is_not_kept_is_refused_and_named() -> None:
    sim = started()
    epoch = first_epoch(sim)
    decide(sim, restore(99, e0="v1"))
    assert state(sim) == ("Refused", f"epoch 99 is not kept; kept are {epoch}")
    sim.put("Override", restore(epoch, e9="v1", e0="v0"))
    sim.operate()
    assert "e9: there is no such Expert any more" in state(sim)[1]


def test_few_epochs_are_kept_and_what_an_override_names_stays() -> None:
    sim = started(rollout={"scaleDownDelaySeconds": 0})
    sim.put("Mixture", mixture(revisionHistoryLimit=2))
    epoch = first_epoch(sim)
    promote(sim, "v2", "e0")
    decide(sim, restore(epoch, e0="v2"))
    for version in ("v3", "v4", "v5"):
        sim.run(8)
        promote(sim, version, "e0")
    sim.run(3)
    kept = sorted(sim.snapshots.values(), key=lambda k: k.epoch)
    assert [k.experts["e0"].version for k in kept] == ["v1", "v4", "v5"]
    assert kept[0].epoch == epoch


def test_an_epoch_is_brought_back_although_its_revisions_of_experts_are_gone() -> None:
    sim = started(revisionHistoryLimit=1)
    epoch = first_epoch(sim)
    promote(sim, "v2", "e0")
    sim.run(10)
    assert {r.version.version for r in sim.revisions.values() if r.expert == "e0"} == {"v2"}
    decide(sim, restore(epoch, e0="v2"))
    sim.run(6)
    assert stable(sim) == "v1"


def test_the_number_of_an_epoch_means_one_thing_also_when_the_table_was_lost() -> None:
    sim = started()
    promote(sim, "v2", "e0")
    sim.run(10)
    kept = dict(sim.snapshots)
    sim.stored = None
    sim.run(10)
    assert table(sim).epoch > max(k.epoch for k in kept.values())
    assert kept.items() <= sim.snapshots.items()
    assert next_epoch(None, ()) == 1
    assert next_epoch(table(sim), kept.values()) == table(sim).epoch + 1


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("action", "Pause", "spec.action is 'Pause'; of a Mixture there is only Serve"),
        ("epoch", 0, "spec.epoch is 0"),
        ("replaces", [{"kind": "Pod", "name": "x", "insteadOf": "v1"}], "one of Expert, Gate"),
        ("replaces", [{"kind": "Gate", "name": "x"}], "spec.replaces[0].insteadOf is missing"),
        ("targetRef", {"kind": "Pod", "name": "x"}, "one of Expert, Gate, Mixture"),
    ],
)
def test_a_mistake_is_named(field: str, value: Any, words: str) -> None:
    body = restore(3, e0="v2")
    OverrideSpec.from_body(body)
    body["spec"][field] = value
    with pytest.raises(InvalidDocument) as raised:
        OverrideSpec.from_body(body)
    assert words in str(raised.value)
