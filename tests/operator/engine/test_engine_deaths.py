"""The operator killed after any of its writes: what comes of it is what would have come anyway."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from moe_operator.cluster import ApiError, Conflict, Unavailable
from moe_operator.kinds import DEPLOYMENT, EXPERT, OVERRIDE, POD, ROUTING_TABLE, Body
from tests.operator.engine.bodies import NAMESPACE, expert, gate, golden_set, mixture, override, sha
from tests.operator.engine.play import Play

QUICK = {
    "steps": [{"weightPercent": 25, "pauseSeconds": 1}, {"weightPercent": 100, "pauseSeconds": 1}],
    "minRequests": 10,
    "scaleDownDelaySeconds": 5,
}


def row(play: Play, expert_id: str = "e0") -> dict[str, Any]:
    table = play.api.objects[ROUTING_TABLE, NAMESPACE, "tiny"]
    found: dict[str, Any] = next(r for r in table["spec"]["experts"] if r["expertId"] == expert_id)
    return found


def version(name: str, letter: str) -> Body:
    return expert("e0", sha(letter), name, backupExpertId="e1", rollout=QUICK)


async def served(kill_after: int = -1) -> Play:
    """Return a play in which two experts and a gate are served."""
    play = Play(kill_after=kill_after)
    for body in (mixture(), version("v1", "a"), expert("e1", sha("c")), gate("e0", "e1")):
        play.api.put(body)
    await play.start()
    await play.until_quiet()
    return play


def clients(play: Play, bad: str = "") -> Callable[[], None]:
    """Return a turn in which every version is asked; a bad one answers what is not finite.

    It does so only once it has weight.
    """

    def turn() -> None:
        for letter in "abc":
            nonfinite = 2 if letter == bad and named(play, sha(letter)) else 0
            play.nodes.count(sha(letter), requests=10, rows=100, nonfinite_rows=nonfinite)

    return turn


def named(play: Play, sha256: str) -> bool:
    if (ROUTING_TABLE, NAMESPACE, "tiny") not in play.api.objects:
        return False
    candidate = row(play).get("candidate") or {}
    return candidate.get("sha256") == sha256 and bool(row(play)["rollout"]["weights"])


async def promoted(play: Play) -> None:
    play.turn = clients(play)
    play.api.put(version("v2", "b"))
    await play.until_quiet()


async def taken_back(play: Play) -> None:
    play.turn = clients(play, bad="b")
    play.api.put(version("v2", "b"))
    await play.until_quiet()


async def decided_by_a_person(play: Play) -> None:
    await promoted(play)
    play.api.put(override("back", "tiny-e0", "Serve", version="v1", insteadOf="v2"))
    await play.until_quiet()


async def given_up_in_the_middle(play: Play) -> None:
    play.api.put(version("v2", "b"))
    await play.until_quiet()  # nobody asks: the first step waits
    play.api.put(version("v1", "a"))
    await play.until_quiet()


async def evaluated(play: Play) -> None:
    """The first evaluator fails, the second one finds nothing wrong."""
    play.nodes.broken_evaluations = 1
    play.api.put(mixture(**golden_set()))
    await promoted(play)


async def worse_on_the_golden_set(play: Play) -> None:
    play.nodes.losses[sha("b")] = 0.5
    play.api.put(mixture(**golden_set()))
    await promoted(play)


SCENARIOS = [
    promoted,
    taken_back,
    decided_by_a_person,
    given_up_in_the_middle,
    evaluated,
    worse_on_the_golden_set,
]


def outcome(play: Play) -> dict[str, Any]:
    """Return what an outsider can tell afterwards, without times."""
    e0 = row(play)
    deployments = {
        place[2]: body["spec"]["replicas"]
        for place, body in play.api.objects.items()
        if place[0] == DEPLOYMENT
    }
    status = play.api.objects[EXPERT, NAMESPACE, "tiny-e0"]["status"]
    overrides = [b["status"]["state"] for p, b in play.api.objects.items() if p[0] == OVERRIDE]
    evaluators = [p[2] for p in play.api.objects if p[0] == POD and "-eval-" in p[2]]
    return {
        "evaluators": evaluators,
        "versions": {part: (e0.get(part) or {}).get("version") for part in ("stable", "candidate")},
        "outcome": e0["rollout"]["outcome"],
        "revoked": e0.get("revoked"),
        "deployments": deployments,
        "conditions": {c["type"]: (c["status"], c["reason"]) for c in status["conditions"]},
        "in use": status["inUse"],
        "overrides": overrides,
    }


def decisive(writes: list[str]) -> Counter[str]:
    """Return how often each kind of write was done, without what is only said in status."""
    return Counter(write for write in writes if not write.startswith("merge status"))


async def test_a_mixture_is_served_whenever_the_operator_dies_before() -> None:
    lived = await served()
    for death in range(1, len(lived.writes) + 1):
        play = await served(kill_after=death)
        assert play.deaths == 1
        assert outcome(play) == outcome(lived), f"after {lived.writes[death - 1]} ({death})"


@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_the_end_and_the_writes_are_those_of_an_operator_that_lived(
    scenario: Callable[[Play], Any],
) -> None:
    lived = await served()
    before = len(lived.writes)
    await scenario(lived)
    for death in range(before + 1, len(lived.writes) + 1):
        play = await served(kill_after=death)
        await scenario(play)
        died_after = f"after {lived.writes[death - 1]} ({death})"
        assert play.deaths == 1, died_after
        assert outcome(play) == outcome(lived), died_after
        assert decisive(play.writes) == decisive(lived.writes), died_after


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("error", [Conflict("seen another"), Unavailable("overloaded", 2.0)])
async def test_a_write_that_is_refused_once_changes_neither_the_end_nor_the_writes(
    scenario: Callable[[Play], Any], error: ApiError
) -> None:
    lived = await served()
    before = len(lived.writes)
    await scenario(lived)
    for refused in range(before, len(lived.writes)):
        play = await served()
        play.refuse, play.refuse_after = error, refused
        await scenario(play)
        at = f"{lived.writes[refused]} ({refused})"
        assert play.refuse is None, at
        assert outcome(play) == outcome(lived), at
        assert decisive(play.writes) == decisive(lived.writes), at


@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_epochs_rise_by_one_and_what_is_revoked_is_never_named(
    scenario: Callable[[Play], Any],
) -> None:
    play = await served()
    tables: list[Body] = []
    play.on_table = tables.append
    await scenario(play)
    epochs = [table["spec"]["epoch"] for table in tables]
    assert epochs == list(range(epochs[0], epochs[0] + len(tables)))
    for table in tables:
        for expert_row in table["spec"]["experts"]:
            parts = [expert_row.get(part) for part in ("stable", "candidate", "previous")]
            digests = {part["sha256"] for part in parts if part}
            assert not digests & set(expert_row.get("revoked") or ())


@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_nothing_is_written_when_all_is_done(scenario: Callable[[Play], Any]) -> None:
    play = await served()
    await scenario(play)
    writes = len(play.writes)
    play.seconds += 3600
    await play.start()
    await play.until_quiet()
    assert play.writes[writes:] == []
