"""The operator against a real API server: tables, pods, rollouts, and no write too many."""

from __future__ import annotations

from typing import Any

import pytest

from moe_operator.cluster import Refused
from moe_operator.kinds import (
    DEPLOYMENT,
    EXPERT,
    GATE,
    OVERRIDE,
    POD,
    ROUTING_TABLE,
    SERVICE,
    Body,
    labels_of,
)
from tests.operator.engine.bodies import expert, gate, mixture, override, sha
from tests.operator.kube.stage import Stage


def tiny() -> list[dict[str, Any]]:
    quick = {"steps": [{"weightPercent": 50, "pauseSeconds": 0}], "minRequests": 5}
    quick |= {"scaleDownDelaySeconds": 1}
    return [
        mixture(),
        expert("e0", sha("a"), backupExpertId="e1", rollout=quick),
        expert("e1", sha("c"), rollout=quick),
        gate("e0", "e1"),
    ]


def row(table: Body, expert_id: str) -> dict[str, Any]:
    found: dict[str, Any] = next(r for r in table["spec"]["experts"] if r["expertId"] == expert_id)
    return found


def serves(table: Body, **versions: str) -> bool:
    """Return whether these are the stable versions and the gate is there."""
    rows = table["spec"]["experts"]
    stable = {r["expertId"]: (r.get("stable") or {}).get("version") for r in rows}
    return stable == versions and bool(table["spec"]["gates"])


def condition(body: Body, name: str) -> tuple[str, str]:
    conditions = body.get("status", {}).get("conditions", [])
    return next(((c["status"], c["reason"]) for c in conditions if c["type"] == name), ("", ""))


async def test_a_mixture_is_served_and_applying_it_again_writes_nothing(stage: Stage) -> None:
    stage.start()
    await stage.apply(*tiny())
    await stage.until(ROUTING_TABLE, "tiny", lambda t: serves(t, e0="v1", e1="v1"))
    await stage.until(EXPERT, "tiny-e0", lambda e: condition(e, "Ready")[0] == "True")
    await stage.until(GATE, "tiny-gate", lambda e: condition(e, "Ready")[0] == "True")
    mark = await stage.quiet()
    await stage.apply(*tiny())
    await stage.quiet()
    assert stage.writes(mark) == []


async def served(stage: Stage) -> None:
    """Bring the mixture up."""
    stage.start()
    await stage.apply(*tiny())
    await stage.until(ROUTING_TABLE, "tiny", lambda t: serves(t, e0="v1", e1="v1"))


def version_two() -> dict[str, Any]:
    return {"version": "v2", "artifact": {"uri": "file:///artifacts/v2", "sha256": sha("b")}}


async def on_trial(stage: Stage, weight: int = 50) -> Body:
    """Give e0 another version, and wait until sessions see it."""
    await stage.patch(EXPERT, "tiny-e0", {"spec": version_two()})

    def seen(table: Body) -> bool:
        return "candidate" in row(table, "e0") and weights(table, "e0")[-1:] == [weight]

    return await stage.until(ROUTING_TABLE, "tiny", seen)


async def pods_of(stage: Stage, name: str) -> set[str]:
    pods = await stage.all(POD)
    return {p["metadata"]["uid"] for p in pods if labels_of(p).get("moeops.dev/expert") == name}


def weights(table: Body, expert_id: str) -> list[int]:
    return [w["percent"] for w in row(table, expert_id)["rollout"]["weights"]]


async def test_a_good_version_is_promoted_and_the_old_pods_go_afterwards(stage: Stage) -> None:
    await served(stage)
    siblings = await pods_of(stage, "tiny-e1")
    await on_trial(stage)
    old = f"tiny-e0-{sha('a')[:10]}"
    stage.nodes.count(sha("a"), requests=50, rows=500)
    stage.nodes.count(sha("b"), requests=50, rows=500)
    table = await stage.until(ROUTING_TABLE, "tiny", lambda t: serves(t, e0="v2", e1="v1"))
    assert row(table, "e0")["previous"]["version"] == "v1"
    assert row(table, "e0")["rollout"]["outcome"] == "Promoted"
    await stage.until(ROUTING_TABLE, "tiny", lambda t: "previous" not in row(t, "e0"))
    await stage.gone(DEPLOYMENT, old)
    await stage.until(EXPERT, "tiny-e0", lambda e: e["status"]["version"] == "v2")
    assert await pods_of(stage, "tiny-e1") == siblings


async def test_a_version_with_answers_that_are_not_finite_is_taken_back(stage: Stage) -> None:
    await served(stage)
    await on_trial(stage)
    stage.nodes.count(sha("a"), requests=1, rows=10)
    stage.nodes.count(sha("b"), requests=1, rows=10, nonfinite_rows=3)
    table = await stage.until(
        ROUTING_TABLE, "tiny", lambda t: row(t, "e0")["rollout"]["outcome"] == "RolledBack"
    )
    assert row(table, "e0")["stable"]["version"] == "v1"
    assert row(table, "e0")["revoked"] == [sha("b")]
    expert_ = await stage.until(
        EXPERT, "tiny-e0", lambda e: condition(e, "Progressing")[1] == "RolledBack"
    )
    assert expert_["spec"]["version"] == "v2"  # what people wrote stays
    mark = await stage.quiet()
    await stage.quiet()
    assert stage.writes(mark) == []  # a revision that failed is not tried again


async def test_an_artifact_that_is_refused_is_never_named(stage: Stage) -> None:
    await served(stage)
    stage.nodes.refused[sha("b")] = "its digest is cccc, not bbbb"
    await stage.patch(EXPERT, "tiny-e0", {"spec": version_two()})
    expert_ = await stage.until(
        EXPERT, "tiny-e0", lambda e: condition(e, "Progressing")[1] == "ArtifactRefused"
    )
    said = [c["message"] for c in expert_["status"]["conditions"] if c["type"] == "Progressing"]
    assert "its digest is cccc, not bbbb" in said[0]
    table = await stage.get(ROUTING_TABLE, "tiny")
    assert row(table, "e0")["stable"]["version"] == "v1"
    assert "candidate" not in row(table, "e0")


async def test_a_person_takes_a_promoted_version_back_in_one_epoch(stage: Stage) -> None:
    await served(stage)
    await on_trial(stage)
    for letter in "ab":
        stage.nodes.count(sha(letter), requests=50, rows=500)
    promoted = await stage.until(ROUTING_TABLE, "tiny", lambda t: serves(t, e0="v2", e1="v1"))
    await stage.apply(override("back", "tiny-e0", "Serve", version="v1", insteadOf="v2"))
    table = await stage.until(ROUTING_TABLE, "tiny", lambda t: serves(t, e0="v1", e1="v1"))
    assert table["spec"]["epoch"] == promoted["spec"]["epoch"] + 1
    assert row(table, "e0")["revoked"] == [sha("b")]
    await stage.until(OVERRIDE, "back", lambda o: o["status"]["state"] == "Active")


async def test_the_operator_may_end_at_any_time_in_a_rollout(stage: Stage) -> None:
    await served(stage)
    before = await on_trial(stage)
    await stage.restart()
    await stage.quiet()
    after = await stage.get(ROUTING_TABLE, "tiny")
    assert after["spec"] == before["spec"]
    for letter in "ab":
        stage.nodes.count(sha(letter), requests=50, rows=500)
    await stage.until(ROUTING_TABLE, "tiny", lambda t: serves(t, e0="v2", e1="v1"))


async def test_a_status_that_is_lost_comes_back_and_changes_nothing_served(stage: Stage) -> None:
    await served(stage)
    before = await on_trial(stage)
    await stage.quiet()
    told = (await stage.get(EXPERT, "tiny-e0"))["status"]
    wiped = dict.fromkeys(told)
    await stage.patch(EXPERT, "tiny-e0", {"status": wiped}, "status")
    again = await stage.until(
        EXPERT, "tiny-e0", lambda e: (e.get("status") or {}).keys() == told.keys()
    )
    assert again["status"]["version"] == told["version"]
    assert again["status"]["inUse"] is True
    assert (await stage.get(ROUTING_TABLE, "tiny"))["spec"] == before["spec"]


async def test_a_table_that_somebody_else_changed_is_not_overwritten(stage: Stage) -> None:
    """Another writer's epoch stands; the operator decides anew on top of it."""
    await served(stage)
    await stage.quiet()
    table = await stage.get(ROUTING_TABLE, "tiny")
    foreign = {**table["spec"], "epoch": table["spec"]["epoch"] + 5}
    await stage.api.replace(ROUTING_TABLE, {**table, "spec": foreign})
    changed = await on_trial(stage)
    assert changed["spec"]["epoch"] > foreign["epoch"]


async def test_what_the_table_names_cannot_be_deleted(stage: Stage) -> None:
    await served(stage)
    await stage.until(EXPERT, "tiny-e0", lambda e: e["status"].get("inUse"))
    with pytest.raises(Refused, match="the routing table names it"):
        await stage.delete(EXPERT, "tiny-e0")
    await stage.until(GATE, "tiny-gate", lambda g: g["status"].get("inUse"))
    with pytest.raises(Refused, match="delete-anyway"):
        await stage.delete(GATE, "tiny-gate")
    note = {"metadata": {"annotations": {"moeops.dev/delete-anyway": "yes"}}}
    await stage.patch(EXPERT, "tiny-e0", note)
    await stage.delete(EXPERT, "tiny-e0")
    table = await stage.until(ROUTING_TABLE, "tiny", lambda t: "stable" not in row(t, "e0"))
    assert row(table, "e0")["backup"] == "e1"  # the gate still sends rows there


async def test_a_child_that_somebody_deleted_or_changed_is_made_again(stage: Stage) -> None:
    await served(stage)
    await stage.quiet()
    service = await stage.delete(SERVICE, "tiny-workers")
    made = await stage.until(SERVICE, "tiny-workers", lambda s: s["metadata"]["uid"])
    assert made["metadata"]["uid"] != service["metadata"]["uid"]
    name = f"tiny-e1-{sha('c')[:10]}"
    await stage.patch(DEPLOYMENT, name, {"spec": {"replicas": 0}})
    await stage.until(DEPLOYMENT, name, lambda d: d["spec"]["replicas"] == 1)
