"""A gate and an expert version that belong together are served together, in either order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import yaml

from e2e.conftest import ROOT
from e2e.stage.kube import Body, condition, wait_for
from e2e.stage.restore import AT_ONCE
from e2e.stage.tiny import Tiny
from examples.tiny import model as example
from examples.tiny.publish import ROLLOUTS, SERVE
from moe_artifacts.checkpoint import open_checkpoint
from moe_core.document import Reader
from moe_core.rows import GateRow
from tests.support.gates import write_gate

EXPERTS = [f"e{number}" for number in range(8)]


def sharper_gate() -> Body:
    """Write a gate of other weights where nodes see it; return its uri and digest."""
    folder = ROOT / ".moe" / "artifacts" / "tiny" / "gate-v2"
    folder.mkdir(exist_ok=True)
    checkpoint = open_checkpoint(example.CHECKPOINT)
    gates = {layer: checkpoint.gate(layer) for layer in range(4)}
    weights = {layer: (g * np.asarray(1.125, g.dtype)) for layer, g in gates.items()}
    written = write_gate(folder, weights, EXPERTS)
    uri = f"file:///moe/artifacts/tiny/gate-v2/{written.path.name}"
    return {"uri": uri, "sha256": written.sha256}


def gate(version: str, accepts: Mapping[str, Sequence[str]]) -> Body:
    body: Body = yaml.safe_load((SERVE / "gate.yaml").read_text())
    body["spec"]["experts"] = [
        {"id": e, **({"versions": list(accepts[e])} if e in accepts else {})} for e in EXPERTS
    ]
    body["spec"]["rollout"] = AT_ONCE
    if version != "v1":
        body["spec"] |= {"version": version, "artifact": sharper_gate()}
    return body


def served(tiny: Tiny) -> tuple[str, str]:
    """Return the versions of gate and e3 that the table pairs."""
    table = tiny.kube.table("tiny")
    (row,) = table["gates"]
    version = tiny.kube.table_row("tiny", "tiny-e3")["stable"]["version"]
    return row["stable"]["version"], version


def misfits(tiny: Tiny) -> list[str]:
    """Return what was served of e3 beside a gate that does not accept it, of the epochs kept."""
    epochs = tiny.kube.list(
        "controllerrevisions", "moeops.dev/mixture=tiny,!moeops.dev/expert,!moeops.dev/gate"
    )
    pairs = [
        (GateRow.read(Reader(row, "gate")), epoch["data"]["experts"]["tiny-e3"]["version"])
        for epoch in epochs
        for row in epoch["data"]["gates"]
    ]
    return [
        f"{row.stable.version} with {version}"
        for row, version in pairs
        if version not in row.stable.accepts.get("e3", (version,))
    ]


def reason(tiny: Tiny, kind: str, name: str) -> str:
    body = tiny.kube.get(kind, name)
    assert body is not None
    return str(condition(body, "Progressing").get("reason", ""))


@pytest.mark.parametrize("first", ["gate", "expert"])
def test_gate_and_version_are_served_in_one_epoch(tiny: Tiny, first: str) -> None:
    tiny.kube.apply(gate("v1", {"e3": ["v1"]}))
    new_gate = gate("v2", {"e3": ["v2-better"]})
    new_version: Body = yaml.safe_load((ROLLOUTS / "e3-v2-better.yaml").read_text())
    # Nobody asks here; that both are tried out is for the scenarios of gates together with experts.
    new_version["spec"]["rollout"] = AT_ONCE
    one, other = (new_gate, new_version) if first == "gate" else (new_version, new_gate)
    tiny.kube.apply(one)
    if first == "gate":
        wait_for("the gate waits", lambda: reason(tiny, "gate", "tiny-gate") != "Complete", 30)
    else:
        wait_for("e3 is held", lambda: reason(tiny, "expert", "tiny-e3") == "Held", 60)
    assert served(tiny) == ("v1", "v1")
    tiny.kube.apply(other)
    wait_for("both are served", lambda: served(tiny) == ("v2", "v2-better"), 120)
    e3_back: Body = yaml.safe_load((SERVE / "e3.yaml").read_text())
    e3_back["spec"]["rollout"] = AT_ONCE  # a second later v1 is not kept any more
    tiny.kube.apply(e3_back, gate("v1", {"e3": ["v1"]}))
    wait_for("both are back", lambda: served(tiny) == ("v1", "v1"), 120)
    assert misfits(tiny) == []
