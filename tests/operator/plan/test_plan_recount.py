"""A rollout that stands still has other counts each second, and is not written for them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from moe_operator.recount import recounted
from tests.operator.plan.bodies import override
from tests.operator.plan.looks import started, until_weight
from tests.operator.plan.simulation import START, Simulation

WRITTEN = "status Expert e0"


def paused() -> Simulation:
    """Return a rollout that a person holds while its sessions go on."""
    sim = started()
    sim.want("e0", "v2")
    until_weight(sim, 25)
    sim.put("Override", override("hold", "e0", "Pause", insteadOf="v2", reason="lunch"))
    sim.run(2)
    assert status(sim)["phase"] == "Paused"
    return sim


def status(sim: Simulation) -> dict[str, Any]:
    found: dict[str, Any] = sim.bodies["Expert", "e0"]["status"]
    return found


def test_counts_of_a_paused_rollout_are_written_every_half_minute() -> None:
    sim = paused()
    before, known = len(sim.writes), status(sim)["rollout"]["requests"]
    sim.run(90)
    assert sim.writes[before:] == [WRITTEN] * 3
    assert status(sim)["rollout"]["requests"] > known + 60


def test_the_last_counts_are_written_though_nothing_comes_any_more() -> None:
    sim = paused()
    sim.run(10)
    held_back, sim.traffic = status(sim)["rollout"]["requests"], 0
    again_at = sim.look().again_at
    assert again_at is not None
    assert again_at <= sim.now + timedelta(seconds=30)
    before = len(sim.writes)
    sim.run(120)
    assert sim.writes[before:] == [WRITTEN]
    assert status(sim)["rollout"]["requests"] > held_back


def test_what_a_person_needs_is_written_at_once() -> None:
    sim = paused()
    sim.run(1)
    sim.change("e0", replicas=3)
    before = len(sim.writes)
    sim.run(1)
    assert WRITTEN in sim.writes[before:]
    assert status(sim)["ready"].endswith("/3")
    sim.remove("Override", "hold")
    sim.run(1)
    assert "counted" not in status(sim)["rollout"]


def body(message: str = "3 of 20 requests", state: str = "Waiting", **rollout: Any) -> Any:
    told = {"tier": "Service", "name": "requests", "state": state, "message": message}
    fields = {"outcome": "Paused", "requests": 3, "rows": 9, "evidence": [told], **rollout}
    return {"phase": "Paused", "rollout": fields}


@pytest.mark.parametrize(
    ("new", "seconds", "written"),
    [
        pytest.param(body(), 60, False, id="nothing is new"),
        pytest.param(body(requests=4, rows=12), 29, False, id="counts, too soon"),
        pytest.param(body(requests=4, rows=12), 30, True, id="counts, in time"),
        pytest.param(body("4 of 20 requests"), 29, False, id="a sentence with another number"),
        pytest.param(body("−0.13 against 0,1"), 1, True, id="another sentence"),
        pytest.param(body(state="Pass"), 1, True, id="another verdict"),
        pytest.param(body(step=2), 1, True, id="another step"),
        pytest.param({**body(), "ready": "1/2"}, 1, True, id="fewer pods"),
        pytest.param(body(outcome="Progressing", requests=4), 1, True, id="it goes on"),
        pytest.param({"phase": "Serving"}, 1, True, id="it is over"),
    ],
)
def test_what_is_written_when(new: dict[str, Any], seconds: int, written: bool) -> None:
    first, again = recounted({}, body(), START)
    assert (first["rollout"]["counted"], again) == ("2026-01-01T12:00:00Z", None)
    status, again = recounted(first, new, START + timedelta(seconds=seconds))
    assert (status != first) is written
    held_back = not written and new != body()
    assert again == (START + timedelta(seconds=30) if held_back else None)
    paused = new.get("rollout", {}).get("outcome") == "Paused"
    assert ("counted" in status.get("rollout", {})) is paused
