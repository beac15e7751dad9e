"""An expert that falls ill, as the whole operator sees it: what is told, held up and taken back.

No write tells of numbers only, and what was said and kept outlasts an operator that dies.
"""

from __future__ import annotations

from typing import Any

from moe_operator.kinds import Body
from tests.operator.engine.bodies import expert, gate, mixture, sha
from tests.operator.engine.play import Play
from tests.operator.engine.scenarios import QUICK, version
from tests.support.scrape import read

WINDOW = 800
OWN, OTHER = sha("c"), sha("b")  # e1's stable version, and the candidate of e0


class Stage:
    """A mixture in which e1 is attended and e0 is what rolls out."""

    def __init__(self, on_alarm: str = "Report") -> None:
        self.play = Play()
        self.health = {
            "windowAttempts": WINDOW,
            "maxErrorPercent": 5,
            "maxNormChangePercent": 50,
            "onAlarm": on_alarm,
        }

    async def begin(self) -> None:
        await self.play.put(mixture(), version("v1"), self.e1(), gate("e0", "e1"))
        await self.play.operate(True)
        await self.play.rest()

    def e1(self, digest: str = OWN, name: str = "v1") -> Body:
        return expert("e1", digest, name, health=self.health, rollout=QUICK)

    async def serve(
        self, times: int, errors: int = 0, norm: float = 2.0, digest: str = OWN
    ) -> None:
        """Let 100 attempts be counted again and again, each time heard of."""
        for _ in range(times):
            rows = 100 - errors
            self.play.nodes.count(
                digest, requests=100, errors=errors, rows=rows, norm_sum=rows * norm
            )
            await self.play.passes(1.0)

    async def try_out(self, times: int, **more: float) -> None:
        """The same while a candidate of e0 is used too."""
        for _ in range(times):
            self.play.nodes.count(OTHER, requests=20)
            await self.serve(1, **more)  # type: ignore[arg-type]

    def object(self, kind: str, name: str) -> Body:
        body: Body = next(
            b for (k, _, n), b in self.play.api.objects.items() if (k.name, n) == (kind, name)
        )
        return body

    def status(self, name: str = "tiny-e1") -> Body:
        found: Body = self.object("Expert", name)["status"]
        return found

    def said(self, type_: str, name: str = "tiny-e1") -> tuple[str, str, str]:
        (one,) = (c for c in self.status(name)["conditions"] if c["type"] == type_)
        return one["status"], one["reason"], one["message"]

    @property
    def ill(self) -> tuple[str, str]:
        return self.said("Failing")[0], self.said("NormShifted")[0]

    def events(self) -> list[Any]:
        return [
            (b["reason"], b["type"])
            for (k, _, _), b in self.play.api.objects.items()
            if k.name == "Event" and b["regarding"]["name"] == "tiny-e1"
        ]


async def test_what_falls_ill_has_a_condition_that_ends_when_it_is_well() -> None:
    stage = Stage()
    await stage.begin()
    assert stage.ill == ("Unknown", "Unknown")
    assert stage.status()["health"] == {"sha256": OWN}
    await stage.serve(12)
    assert stage.ill == ("False", "False")
    assert stage.status()["health"] == {"sha256": OWN, "meanNorm": 2.0}
    await stage.serve(10, norm=5.0)
    assert stage.ill == ("False", "True")
    assert stage.said("NormShifted")[1] == "AnswersChanged"
    assert stage.said("NormShifted")[2].endswith("and was 2 at first; maxNormChangePercent is 50")
    await stage.serve(10, errors=40)
    assert stage.ill == ("True", "False")
    assert stage.said("Failing")[1] == "AttemptsFail"
    await stage.serve(12)
    assert stage.ill == ("False", "False")
    assert stage.status()["health"]["meanNorm"] == 2.0


async def test_numbers_alone_are_never_written() -> None:
    stage = Stage()
    await stage.begin()
    await stage.serve(12)
    before = list(stage.play.writes)
    await stage.serve(20, errors=1, norm=2.2)
    assert stage.play.writes == before
    await stage.serve(20, norm=5.0)
    assert stage.play.writes[len(before) :] == ["merge status Expert"]


async def test_what_else_is_rolling_out_pauses_and_goes_on_by_itself() -> None:
    stage = Stage("Pause")
    await stage.begin()
    await stage.serve(12)
    await stage.play.put(version("v2"))
    await stage.serve(10, norm=5.0)
    await stage.try_out(2, norm=5.0)
    status, reason, message = stage.said("Progressing", "tiny-e0")
    assert (status, reason) == ("False", "Unhealthy")
    assert "Expert tiny-e1 is unhealthy: the mean norm of what v1 answers is" in message
    assert stage.status("tiny-e0")["rollout"]["outcome"] == "Paused"
    stage.play.clients.turn()
    await stage.try_out(16)
    assert stage.status("tiny-e0")["version"] == "v2"


async def test_what_else_is_rolling_out_is_taken_back_where_the_object_says_so() -> None:
    stage = Stage("RollBack")
    await stage.begin()
    await stage.serve(12)
    await stage.play.put(version("v2"))
    await stage.serve(2)
    assert stage.status("tiny-e0")["rollout"]["outcome"] == "Progressing"
    await stage.serve(3, errors=60)
    rollout = stage.status("tiny-e0")["rollout"]
    assert rollout["outcome"] == "RolledBack"
    assert "v2 was taken back: Expert tiny-e1 is unhealthy: " in rollout["message"]
    assert stage.status("tiny-e0")["version"] == "v1"


async def test_a_gate_on_trial_is_taken_back_too() -> None:
    stage = Stage("RollBack")
    await stage.begin()
    await stage.serve(12)
    new = gate("e0", "e1", digest=sha("8"), version="v2")
    new["spec"]["rollout"] = {**QUICK, "shadowPercent": 0}
    await stage.play.put(new)
    await stage.serve(1)
    await stage.serve(4, errors=60)
    rollout = stage.object("Gate", "tiny-gate")["status"]["rollout"]
    assert rollout["outcome"] == "RolledBack"
    assert "Expert tiny-e1 is unhealthy" in rollout["message"]


async def test_its_own_rollout_may_be_the_cure() -> None:
    stage = Stage("RollBack")
    await stage.begin()
    await stage.serve(12)
    await stage.serve(10, norm=5.0)
    await stage.play.put(stage.e1(sha("d"), "v2"))
    for _ in range(8):
        stage.play.nodes.count(sha("d"), requests=20)
        await stage.serve(1, norm=5.0)
    assert stage.status()["version"] == "v2"
    # Of the new version nothing is known yet, whatever was said of the one before.
    assert stage.ill == ("Unknown", "Unknown")
    assert stage.status()["health"] == {"sha256": sha("d")}
    await stage.serve(12, norm=7.0, digest=sha("d"))
    assert stage.ill == ("False", "False")
    assert stage.status()["health"]["meanNorm"] == 7.0


async def test_an_operator_that_starts_anew_knows_what_was_said_and_what_norms_were() -> None:
    stage = Stage("Pause")
    await stage.begin()
    await stage.serve(12)
    await stage.serve(12, norm=5.0)
    await stage.play.operate(False)
    await stage.play.operate(True)
    await stage.serve(2, norm=5.0)
    assert stage.ill == ("False", "True")
    await stage.play.put(version("v2"))
    await stage.try_out(2, norm=5.0)
    assert stage.said("Progressing", "tiny-e0")[1] == "Unhealthy"
    await stage.serve(12, norm=5.0)
    assert stage.ill == ("False", "True")
    await stage.serve(12)
    assert stage.ill == ("False", "False")


async def test_what_is_no_longer_asked_for_is_no_longer_told() -> None:
    stage = Stage()
    await stage.begin()
    await stage.serve(12)
    await stage.play.put(expert("e1", OWN, "v1", rollout=QUICK))
    await stage.play.rest()
    assert "health" not in stage.status()
    assert [c["type"] for c in stage.status()["conditions"]] == ["Ready", "Progressing", "Degraded"]


async def test_what_is_told_prometheus() -> None:
    stage = Stage()
    await stage.begin()
    await stage.serve(12)
    await stage.serve(10, norm=5.0)
    seen = read(stage.play.metrics())
    of = {"mixture_namespace": "default", "mixture": "tiny", "kind": "Expert", "name": "tiny-e1"}
    assert seen.value("moeops_object_alarm", **of, condition="NormShifted") == 1
    assert seen.value("moeops_object_alarm", **of, condition="Failing") == 0
