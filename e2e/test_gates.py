"""A gate is tried out as an expert is: in the shadow, on some sessions, then for all, or not."""

from __future__ import annotations

import numpy as np
import yaml

from e2e.conftest import ROOT
from e2e.stage.kube import Body, condition, wait_for
from e2e.stage.reading import reading
from e2e.stage.tiny import Models, Tiny
from examples.tiny import model as example
from examples.tiny.publish import SERVE
from moe_artifacts.checkpoint import open_checkpoint
from moe_artifacts.encoding import Array
from tests.support.gates import write_gate

EXPERTS = [f"e{number}" for number in range(8)]
TRIED = {
    "steps": [{"weightPercent": 50, "pauseSeconds": 3}],
    "minRequests": 20,
    "shadowPercent": 100,
    "scaleDownDelaySeconds": 2,
    "analysis": {"minShadowRows": 128},
}


def gate(version: str, weights: dict[int, Array]) -> Body:
    """Return the Gate with another artifact, which is written where nodes see it."""
    folder = ROOT / ".moe" / "artifacts" / "tiny" / f"gate-{version}"
    folder.mkdir(exist_ok=True)
    written = write_gate(folder, weights, EXPERTS)
    body: Body = yaml.safe_load((SERVE / "gate.yaml").read_text())
    uri = f"file:///moe/artifacts/tiny/gate-{version}/{written.path.name}"
    artifact = {"uri": uri, "sha256": written.sha256}
    body["spec"] |= {"version": version, "artifact": artifact, "rollout": TRIED}
    return body


def weights() -> dict[int, Array]:
    checkpoint = open_checkpoint(example.CHECKPOINT)
    return {layer: checkpoint.gate(layer) for layer in range(4)}


def collapsed() -> dict[int, Array]:
    """Return a gate whose second choice is the same expert for every token."""
    found = {}
    for layer, weight in weights().items():
        wrong = np.zeros_like(weight)
        wrong[0], wrong[1] = weight[0] * 20, -weight[0] * 20
        found[layer] = wrong
    return found


def served(tiny: Tiny) -> str:
    (row,) = tiny.kube.table("tiny")["gates"]
    return str(row["stable"]["version"])


def status(tiny: Tiny) -> Body:
    body = tiny.kube.get("gate", "tiny-gate")
    assert body is not None
    found: Body = body["status"]
    return found


def outcome(tiny: Tiny) -> tuple[str, str]:
    """Return which version was tried out last, and how far that has come."""
    rollout = status(tiny).get("rollout", {})
    return str(rollout.get("version", "")), str(rollout.get("outcome", ""))


def test_a_gate_goes_from_the_shadow_to_all_sessions_and_none_fails(
    tiny: Tiny, models: Models
) -> None:
    sharper = {layer: w * np.asarray(1.125, w.dtype) for layer, w in weights().items()}
    phases = set()

    def promoted() -> bool:
        phases.add(status(tiny)["phase"])
        return served(tiny) == "v2"

    with reading(tiny, models) as readers:
        tiny.kube.apply(gate("v2", sharper))
        wait_for("the gate is promoted", promoted, 120, interval_s=0.2)
        wait_for("nothing else is left", lambda: status(tiny)["phase"] == "Serving", 60)
        back: Body = yaml.safe_load((SERVE / "gate.yaml").read_text())
        back["spec"]["rollout"] = TRIED
        tiny.kube.apply(back)
        wait_for("the gate is back", lambda: served(tiny) == "v1", 120)
        wait_for("much was read", lambda: readers.sessions > 20, 60)
    assert readers.failures == []
    assert {"Shadow", "Canary"} <= phases


def test_a_collapsed_gate_is_stopped_in_the_shadow(tiny: Tiny, models: Models) -> None:
    with reading(tiny, models) as readers:
        tiny.kube.apply(gate("v2-collapsed", collapsed()))
        wait_for("it is taken back", lambda: outcome(tiny) == ("v2-collapsed", "RolledBack"), 90)
    body = tiny.kube.get("gate", "tiny-gate")
    assert body is not None
    assert "of tokens against" in condition(body, "Progressing")["message"]
    (row,) = tiny.kube.table("tiny")["gates"]
    assert row["rollout"]["weights"] == []
    assert readers.failures == []
