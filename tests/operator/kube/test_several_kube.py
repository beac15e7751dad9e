"""Several rollouts, and gates that accept some versions only, on a real API server."""

from __future__ import annotations

from typing import Any

import pytest

from moe_operator.kinds import EXPERT, GATE, ROUTING_TABLE, Body
from tests.operator.engine.bodies import expert, gate, mixture, sha
from tests.operator.kube.stage import Stage

QUICK = {"steps": [{"weightPercent": 50, "pauseSeconds": 0}], "minRequests": 5}
QUICK |= {"scaleDownDelaySeconds": 1}


def reason(body: Body) -> str:
    conditions = (body.get("status") or {}).get("conditions", ())
    return next((str(c["reason"]) for c in conditions if c["type"] == "Progressing"), "")


def version(name: str, digest: str) -> dict[str, Any]:
    return {"version": name, "artifact": {"uri": f"file:///artifacts/{name}", "sha256": digest}}


def stable(table: Body) -> dict[str, str]:
    rows = table["spec"]["experts"]
    return {r["expertId"]: r["stable"]["version"] for r in rows if "stable" in r}


def tried(table: Body) -> set[str]:
    """Return the experts that sessions see a candidate of."""
    rows = table["spec"]["experts"]
    return {r["expertId"] for r in rows if "candidate" in r and r["rollout"]["weights"]}


async def test_of_two_changes_the_older_goes_first_and_the_other_waits(stage: Stage) -> None:
    await stage.apply(mixture(rollouts={"maxConcurrent": 1}))
    await stage.apply(expert("e0", sha("a"), rollout=QUICK), expert("e1", sha("c"), rollout=QUICK))
    await stage.apply(gate("e0", "e1"))
    stage.start()
    await stage.until(ROUTING_TABLE, "tiny", lambda t: len(stable(t)) == 2 and t["spec"]["gates"])
    await stage.patch(EXPERT, "tiny-e1", {"spec": version("v2", sha("d"))})
    await stage.until(EXPERT, "tiny-e1", lambda e: e["status"]["rollout"]["revision"] == 2)
    await stage.patch(EXPERT, "tiny-e0", {"spec": version("v2", sha("b"))})
    await stage.until(EXPERT, "tiny-e0", lambda e: reason(e) == "WaitingForTurn")
    await stage.until(ROUTING_TABLE, "tiny", lambda t: tried(t) == {"e1"})
    await stage.quiet()  # what it said of that is written: nothing is left for the next one
    await stage.restart()
    mark = await stage.quiet()
    await stage.quiet()
    assert stage.writes(mark) == []
    for letter in "cd":
        stage.nodes.count(sha(letter), requests=50, rows=500)
    await stage.until(ROUTING_TABLE, "tiny", lambda t: stable(t) == {"e0": "v1", "e1": "v2"})
    await stage.until(EXPERT, "tiny-e0", lambda e: e["status"]["rollout"]["revision"] == 2)


@pytest.mark.parametrize("gate_first", [True, False], ids=["gate first", "expert first"])
async def test_gate_and_version_change_together(stage: Stage, gate_first: bool) -> None:
    def choosy(name: str, digest: str, accepted: str) -> Body:
        body = gate("e0", version=name, digest=digest)
        body["spec"]["experts"][0]["versions"] = [accepted]
        return body

    await stage.apply(mixture(), expert("e0", sha("a"), rollout=QUICK))
    await stage.apply(choosy("g1", sha("1"), "v1"))
    stage.start()
    before = await stage.until(ROUTING_TABLE, "tiny", lambda t: t["spec"]["gates"])
    changes = [
        (GATE, choosy("g2", sha("2"), "v2")),
        (EXPERT, expert("e0", sha("b"), "v2", rollout=QUICK)),
    ]
    (kind, first), (_, second) = changes if gate_first else reversed(changes)
    await stage.apply(first)
    await stage.until(kind, first["metadata"]["name"], lambda body: reason(body) == "Held")
    await stage.apply(second)
    await stage.until(ROUTING_TABLE, "tiny", _weighed)
    await stage.quiet()
    stage.nodes.count(sha("b"), requests=50, rows=500)
    after = await stage.until(ROUTING_TABLE, "tiny", lambda t: stable(t) == {"e0": "v2"})
    served = after["spec"]["gates"][0]
    assert (served["stable"]["version"], served["stable"]["accepts"]) == (
        "g2",
        [{"id": "e0", "versions": ["v2"]}],
    )
    # The gate's rollout is written down, its candidate is named, then that of e0 beside it; both
    # get weight, and both are promoted.
    assert after["spec"]["epoch"] == before["spec"]["epoch"] + 5


def _weighed(table: Body) -> bool:
    """Return whether sessions see the new versions of gate and expert."""
    rows = (*table["spec"]["gates"], *table["spec"]["experts"])
    return all((row.get("rollout") or {}).get("weights") and "candidate" in row for row in rows)
