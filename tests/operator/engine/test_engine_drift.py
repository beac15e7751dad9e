"""A gate whose traffic shifts, as the whole operator sees it: what is told, held up and taken back.

No write tells of numbers only, and an operator that dies lets nothing pass that waited.
"""

from __future__ import annotations

from typing import Any

import pytest

from moe_operator.kinds import Body
from tests.operator.drift.traffic import Traffic
from tests.operator.engine.bodies import expert, gate, mixture, sha
from tests.operator.engine.play import Play
from tests.operator.engine.scenarios import version
from tests.support.scrape import read

WINDOW = 4_096
E0, E1 = {"code": 1.0}, {"law": 1.0}
MIX = {"code": 1.0, "law": 1.0}
KINDS = {"code": (0.9, 0.1), "law": (0.1, 0.9)}


def drifting(on_drift: str = "Report", **spec: int) -> dict[str, Any]:
    """Return the gate with a baseline of code and law alike."""
    recorded = Traffic(KINDS, seed=9)
    recorded.serve(4000, MIX)
    known = recorded.spread
    layer = {
        "layer": 0,
        "effectivePairs": int(known.effective),
        "pairs": [round(10_000 * share) for share in known.shares],
    }
    body = gate("e0", "e1")
    baselines = [{"sha256": sha("9"), "layers": [layer]}]
    drift = {"baselines": baselines, "windowRows": WINDOW, "onDrift": on_drift, **spec}
    body["spec"]["drift"] = drift
    return body


class Stage:
    """A mixture that is served, and the rows that its gate chooses for."""

    def __init__(self, on_drift: str = "Report", **spec: int) -> None:
        self.play, self.traffic = Play(), Traffic(KINDS)
        self.gate = drifting(on_drift, **spec)

    async def begin(self) -> None:
        e1 = expert("e1", sha("c"))
        await self.play.put(mixture(), version("v1"), e1, self.gate)
        await self.play.operate(True)
        await self.play.rest()

    async def serve(self, times: int, mix: dict[str, float]) -> None:
        """Let eight sessions come again and again, each time heard of."""
        for _ in range(times):
            self.traffic.serve(8, mix)
            self.play.nodes.chosen[sha("9")] = self.traffic.tallies
            await self.play.passes(1.0)

    def object(self, kind: str, name: str) -> Body:
        body: Body = next(
            b for (k, _, n), b in self.play.api.objects.items() if (k.name, n) == (kind, name)
        )
        return body

    def condition(self, kind: str, name: str, type_: str) -> tuple[str, str, str]:
        conditions = self.object(kind, name)["status"]["conditions"]
        (one,) = (c for c in conditions if c["type"] == type_)
        return one["status"], one["reason"], one["message"]

    @property
    def drifts(self) -> tuple[str, str]:
        return self.condition("Gate", "tiny-gate", "Drifting")[:2]

    @property
    def rollout(self) -> Body:
        found: Body = self.object("Expert", "tiny-e0")["status"].get("rollout", {})
        return found


async def test_a_shift_is_a_condition_and_an_event_and_ends_as_one() -> None:
    stage = Stage()
    await stage.begin()
    assert stage.drifts == ("Unknown", "TooFewRows")
    await stage.serve(12, MIX)
    assert stage.drifts == ("False", "WithinLimits")
    await stage.serve(12, E0)
    status, reason, message = stage.condition("Gate", "tiny-gate", "Drifting")
    assert (status, reason) == ("True", "RoutingShifted")
    assert "layer 0 is at PSI" in message
    await stage.serve(20, MIX)
    assert stage.drifts == ("False", "WithinLimits")


async def test_numbers_alone_are_never_written() -> None:
    stage = Stage()
    await stage.begin()
    await stage.serve(12, MIX)
    before = list(stage.play.writes)
    await stage.serve(20, MIX)
    assert stage.play.writes == before
    await stage.serve(12, E0)
    assert stage.play.writes[len(before) :] == ["merge status Gate"]
    await stage.serve(12, E0)
    assert stage.play.writes[len(before) :] == ["merge status Gate"]


async def test_a_rollout_pauses_while_it_drifts_and_goes_on_by_itself() -> None:
    stage = Stage("Pause")
    await stage.begin()
    await stage.serve(12, MIX)
    await stage.serve(10, E0)
    await stage.play.put(version("v2"))
    stage.play.nodes.count(sha("b"), requests=100)
    await stage.serve(3, E0)
    status, reason, message = stage.condition("Expert", "tiny-e0", "Progressing")
    assert (status, reason) == ("False", "Drifting")
    assert "Gate tiny-gate drifts: layer 0 is at PSI" in message
    assert stage.rollout["outcome"] == "Paused"
    assert stage.object("Expert", "tiny-e0")["status"]["weight"] == "0%"
    stage.play.clients.turn()
    await stage.serve(20, MIX)
    stage.play.nodes.count(sha("b"), requests=100)
    await stage.serve(4, MIX)
    stage.play.nodes.count(sha("b"), requests=100)
    await stage.serve(6, MIX)
    assert stage.object("Expert", "tiny-e0")["status"]["version"] == "v2"


async def test_what_is_rolling_out_is_taken_back_where_the_object_says_so() -> None:
    stage = Stage("RollBack")
    await stage.begin()
    await stage.serve(12, MIX)
    await stage.play.put(version("v2"))
    await stage.serve(2, MIX)
    assert stage.rollout["outcome"] == "Progressing"
    await stage.serve(12, E0)
    assert stage.rollout["outcome"] == "RolledBack"
    assert "v2 was taken back: Gate tiny-gate drifts" in stage.rollout["message"]
    assert stage.object("Expert", "tiny-e0")["status"]["version"] == "v1"


async def test_reported_only_a_drift_holds_nothing_up() -> None:
    stage = Stage("Report")
    await stage.begin()
    await stage.serve(24, E0)
    assert stage.drifts == ("True", "RoutingShifted")
    await stage.play.put(version("v2"))
    for _ in range(4):
        stage.play.nodes.count(sha("b"), requests=100)
        await stage.serve(3, E0)
    assert stage.object("Expert", "tiny-e0")["status"]["version"] == "v2"


async def test_an_operator_that_dies_forgets_a_window_and_lets_nothing_pass() -> None:
    stage = Stage("Pause")
    await stage.begin()
    await stage.serve(12, MIX)
    await stage.serve(12, E0)
    assert stage.drifts == ("True", "RoutingShifted")
    await stage.play.put(version("v2"))
    await stage.serve(2, E0)
    await stage.play.operate(False)
    await stage.play.operate(True)
    stage.play.nodes.count(sha("b"), requests=100)
    writes = len(stage.play.writes)
    await stage.serve(2, E0)
    assert stage.drifts == ("True", "RoutingShifted")  # as it was said before
    assert "merge status Gate" not in stage.play.writes[writes:]
    status, _, message = stage.condition("Expert", "tiny-e0", "Progressing")
    assert status == "True"
    assert f"of {WINDOW} rows of Gate tiny-gate compared with its baseline" in message
    assert stage.object("Expert", "tiny-e0")["status"]["weight"] == "0%"
    await stage.serve(10, E0)
    assert stage.condition("Expert", "tiny-e0", "Progressing")[1] == "Drifting"


async def test_a_version_without_a_baseline_is_told_and_holds_nothing_up() -> None:
    stage = Stage("Pause")
    await stage.begin()
    new = gate("e0", "e1", digest=sha("8"), version="v2")
    new["spec"]["drift"] = stage.gate["spec"]["drift"]
    await stage.play.put(new)
    await stage.serve(20, MIX)
    status, reason, message = stage.condition("Gate", "tiny-gate", "Drifting")
    assert (status, reason) == ("Unknown", "BaselineMissing")
    assert "no baseline is of v2 (8888888888)" in message
    await stage.play.put(version("v2"))
    for _ in range(4):
        stage.play.nodes.count(sha("b"), requests=100)
        await stage.serve(3, MIX)
    assert stage.object("Expert", "tiny-e0")["status"]["version"] == "v2"


@pytest.mark.parametrize("detector", ["Collapsed", "Overflowing"])
async def test_each_limit_that_is_given_is_a_condition(detector: str) -> None:
    limits = {"Collapsed": "minExpertsInUsePercent", "Overflowing": "maxOverflowPercent"}
    stage = Stage("Report", **{limits[detector]: 40})
    await stage.begin()
    conditions = stage.object("Gate", "tiny-gate")["status"]["conditions"]
    names = [condition["type"] for condition in conditions]
    assert names == ["Ready", "Progressing", "Drifting", detector]


async def test_what_is_told_prometheus() -> None:
    stage = Stage()
    await stage.begin()
    await stage.serve(12, MIX)
    await stage.serve(12, E0)
    seen = read(stage.play.metrics())
    of = {"mixture_namespace": "default", "mixture": "tiny"}
    place = {**of, "gate": "tiny-gate", "version": "v1", "layer": "0", "context": ""}
    assert seen.value("moeops_gate_psi", **place) > 0.25
    assert 0 < seen.value("moeops_gate_psi_chance", **place) < 0.1
    alarm = {**of, "kind": "Gate", "name": "tiny-gate", "condition": "Drifting"}
    assert seen.value("moeops_object_alarm", **alarm) == 1
