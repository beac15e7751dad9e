"""Mistakes that only show beside other objects, or to the API server, end as a condition."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from moe_operator.kinds import EXPERT, GATE, KINDS, Body
from tests.operator.engine.bodies import expert, gate, mixture, override, sha
from tests.operator.kube.stage import Stage


def messages(body: Body) -> list[str]:
    status = body.get("status") or {}
    said = [f"{c['reason']}: {c['message']}" for c in status.get("conditions", ())]
    return [*said, f"{status.get('state')}: {status.get('message')}"]


def other(body: dict[str, Any], name: str, **spec: Any) -> dict[str, Any]:
    made = copy.deepcopy(body)
    made["metadata"]["name"] = name
    made["spec"] |= spec
    return made


PORT = {"type": "NodePort", "nodePort": 80}
ACCEPTS = [{"id": "e0", "versions": ["v9"]}, {"id": "e1"}]
PAIRS: tuple[tuple[str, dict[str, Any], str], ...] = (
    (
        "of no mixture",
        other(expert("e9"), "tiny-odd", mixtureRef={"name": "none"}),
        "no Mixture none",
    ),
    ("an id that is taken", other(expert("e0"), "tiny-odd"), "that of the older Expert tiny-e0"),
    ("a layer too many", expert("e9", layers=[0, 7]), "spec.layers names 7"),
    ("a backup that is not", expert("e9", backupExpertId="e7"), "no Expert has the id e7"),
    (
        "no mixture of a gate",
        other(gate("e0"), "tiny-odd", mixtureRef={"name": "none"}),
        "no Mixture",
    ),
    ("a layer of another gate", other(gate("e0"), "tiny-odd"), "that of the older Gate tiny-gate"),
    ("a gate of too many layers", other(gate("e0"), "tiny-odd", layers=[9]), "spec.layers names 9"),
    (
        "an expert that is not",
        gate("e0", "e7", version="v2", digest=sha("8")),
        "no Expert has the id e7",
    ),
    (
        "a gate that picks a dense one",
        gate("e0", "d", version="v2", digest=sha("8")),
        "d has the role Dense",
    ),
    (
        "a gate that accepts what nobody serves",
        other(gate("e0", "e1", version="v2", digest=sha("8")), "tiny-gate", experts=ACCEPTS),
        "accepts v9 of e0, not v1; e0 is to serve v1",
    ),
    (
        "an override of nobody",
        override("tiny-odd", "none", "Pause", insteadOf="v1"),
        "no Expert none",
    ),
    (
        "an override of a version that never was",
        override("tiny-odd", "tiny-e0", "Serve", version="v7", insteadOf="v1"),
        "there is no version v7; there are v1",
    ),
    (
        "an override of another version",
        override("tiny-odd", "tiny-e0", "Pause", insteadOf="v7"),
        "Lapsed: spec.version is v1, no longer v7",
    ),
    ("a port that no node has", mixture(routers={"replicas": 1, "service": PORT}), "nodePort"),
    (
        "a label that cannot be",
        mixture(routers={"replicas": 1}, workers={"nodeSelector": {"a b": "c"}}),
        "a b",
    ),
    (
        "a variable of the operator's",
        mixture(routers={"replicas": 1}, workers={"env": [{"name": "MOE_LINK", "value": "x"}]}),
        "MOE_LINK is set by the operator",
    ),
)


@pytest.mark.parametrize(
    ("body", "words"), [pytest.param(body, words, id=name) for name, body, words in PAIRS]
)
async def test_a_mistake_beside_others_is_named(
    stage: Stage, body: dict[str, Any], words: str
) -> None:
    await stage.apply(mixture(), expert("e0"), expert("e1"), expert("d", role="Dense"))
    await stage.apply(gate("e0", "e1"))
    stage.start()
    await stage.until(GATE, "tiny-gate", says("is served"))
    await stage.until(EXPERT, "tiny-e0", says("is served"))
    if body["kind"] == "Mixture":
        await stage.apply(body, other(expert("e0"), "tiny-e2", expertId="e2"))
    else:
        await stage.apply(body)
    kind = KINDS[body["kind"]]
    await stage.until(kind, body["metadata"]["name"], says(words))
    table = (await stage.get(KINDS["RoutingTable"], "tiny"))["spec"]
    assert [g["stable"]["version"] for g in table["gates"]] == ["v1"]
    assert {r["expertId"] for r in table["experts"] if "stable" in r} >= {"e0", "e1"}


def says(words: str) -> Callable[[Body], bool]:
    return lambda body: any(words in message for message in messages(body))


async def test_what_scales_an_expert_reads_its_stable_pods(stage: Stage) -> None:
    await stage.apply(mixture(), expert("e0", replicas=2), gate("e0"))
    stage.start()
    await stage.until(EXPERT, "tiny-e0", lambda e: e["status"].get("readyReplicas") == 2)
    path = f"/apis/moeops.dev/v1alpha1/namespaces/{stage.namespace}/experts/tiny-e0/scale"
    scale = stage.server.request("GET", path)
    assert (scale["spec"]["replicas"], scale["status"]["replicas"]) == (2, 2)
    assert f"moeops.dev/digest={'a' * 10}" in scale["status"]["selector"].split(",")
    scale["spec"]["replicas"] = 3
    stage.server.request("PUT", path, scale)
    await stage.until(EXPERT, "tiny-e0", lambda e: e["status"].get("readyReplicas") == 3)
