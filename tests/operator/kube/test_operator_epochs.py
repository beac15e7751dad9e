"""A whole epoch brought back on a real API server, with `kubectl moe`, and what was looked up."""

from __future__ import annotations

import asyncio
import subprocess
import sys

from kubectl_moe.health import Exit
from moe_operator.kinds import CONTROLLER_REVISION, EXPERT, OVERRIDE, ROUTING_TABLE, metadata
from tests.operator.engine.bodies import expert, gate, mixture, sha
from tests.operator.kube.stage import Stage

QUICK = {
    "steps": [{"weightPercent": 50, "pauseSeconds": 0}],
    "minRequests": 1,
    "scaleDownDelaySeconds": 60,
}


def run(stage: Stage, line: str) -> tuple[int, str]:
    """Run `kubectl moe` as the administrator; return its exit code and all that it says."""
    config = str(stage.server.kubeconfig(stage.namespace))
    command = [sys.executable, "-m", "kubectl_moe", "-q", "--kubeconfig", config, *line.split()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


async def kubectl_moe(stage: Stage, line: str) -> tuple[int, str]:
    return await asyncio.to_thread(run, stage, line)


def stables(table: object) -> dict[str, str]:
    assert isinstance(table, dict)
    rows = table["spec"]["experts"]
    found = {row["expertId"]: (row.get("stable") or {}).get("version", "") for row in rows}
    return found if table["spec"]["gates"] else {}


async def until_served(stage: Stage, **versions: str) -> dict[str, object]:
    found = await stage.until(ROUTING_TABLE, "tiny", lambda table: stables(table) == versions)
    return dict(found)


async def test_an_epoch_comes_back_and_history_says_what_was(stage: Stage) -> None:
    stage.start()
    first = [expert("e0", sha("a"), rollout=QUICK), expert("e1", sha("c"), rollout=QUICK)]
    await stage.apply(mixture(), *first, gate("e0", "e1"))
    await until_served(stage, e0="v1", e1="v1")
    for letter in "abcd":
        stage.nodes.count(sha(letter), requests=1000, rows=1000)
    await stage.quiet()
    await stage.apply(
        expert("e0", sha("b"), "v2", rollout=QUICK), expert("e1", sha("d"), "v2", rollout=QUICK)
    )
    for name in ("e0", "e1"):
        await stage.until(EXPERT, f"tiny-{name}", lambda e: e["status"].get("weight") == "50%")
    for letter in "abcd":
        stage.nodes.count(sha(letter), requests=1000, rows=1000)
    await until_served(stage, e0="v2", e1="v2")
    await stage.quiet()

    code, said = await kubectl_moe(stage, "history mixture/tiny")
    epochs = [line.split()[0] for line in said.splitlines()[1:]]
    assert code == Exit.HEALTHY
    assert "tiny-e0 v1 → v2" in said
    mark = stage.server.audit.position()
    code, said = await kubectl_moe(
        stage, f"rollback mixture/tiny --to {epochs[-1]} --wait --reason odd"
    )
    assert (code, f"what epoch {epochs[-1]} served is served" in said) == (Exit.HEALTHY, True), said
    await until_served(stage, e0="v1", e1="v1")
    (made,) = await stage.all(OVERRIDE)
    assert made["spec"]["requestedBy"] == "admin"
    await stage.quiet()
    tables = [write for write in stage.writes(mark) if "routingtables" in write]
    assert len(tables) == 1, "warm versions come back in one epoch"

    code, said = await kubectl_moe(stage, "history tiny-e0")
    assert "RolledBack" in said
    assert f"{metadata(made)['name']} by admin: odd" in said
    assert (await kubectl_moe(stage, "diff tiny-e0"))[0] == Exit.DIFFERENT
    assert (await kubectl_moe(stage, "resume mixture/tiny"))[0] == Exit.HEALTHY
    await stage.until(EXPERT, "tiny-e0", lambda e: e["status"].get("candidate") == "v2")


async def test_a_broken_revision_hinders_neither_operator_nor_people(stage: Stage) -> None:
    stage.start()
    await stage.apply(mixture(), expert("e0", sha("a"), rollout=QUICK), gate("e0"))
    await until_served(stage, e0="v1")
    await stage.stop()
    for name, labels in (("tiny-e0-7", {"moeops.dev/expert": "tiny-e0"}), ("tiny.9", {})):
        meta = {"name": name, "namespace": stage.namespace}
        meta["labels"] = {"moeops.dev/mixture": "tiny", **labels}  # type: ignore[assignment]
        broken = {"metadata": meta, "revision": 9, "data": {"version": 3}}
        await stage.api.create(CONTROLLER_REVISION, broken)
    stage.start()
    await stage.apply(expert("e0", sha("b"), "v2", rollout=QUICK))
    await stage.until(EXPERT, "tiny-e0", lambda e: e["status"].get("candidate") == "v2")
    for line in ("history tiny-e0", "history mixture/tiny"):
        code, said = await kubectl_moe(stage, line)
        assert (code, "unreadable: data." in said) == (Exit.HEALTHY, True), said
