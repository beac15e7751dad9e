"""What guards pods, on a real API server: budgets, drains, network policies, Pod Security."""

from __future__ import annotations

import asyncio
import re
from typing import Any
from urllib.error import HTTPError

import pytest
import yaml

from moe_operator.kinds import (
    BUDGET,
    DEPLOYMENT,
    MIXTURE,
    NETWORK_POLICY,
    NODE,
    POD,
    ROUTING_TABLE,
    Body,
    annotations_of,
    metadata,
)
from moe_operator.labels import SURGE
from tests.chart import charts
from tests.kube.server import KubeServer
from tests.operator.engine.bodies import mixture, sha
from tests.operator.kube.stage import Stage
from tests.operator.kube.test_operator_kube import pods_of, serves, tiny
from tests.operator.plan.test_plan_manifests import EVALUATOR, GOLDEN

E0 = f"tiny-e0-{sha('a')[:10]}"


async def served_on_a_node(stage: Stage) -> str:
    """Bring the mixture up on a node that is not cordoned; return its name."""
    name = stage.nodes.node = await stage.add_node()
    stage.start()
    await stage.apply(*tiny())
    await stage.until(ROUTING_TABLE, "tiny", lambda t: serves(t, e0="v1", e1="v1"))
    return name


def replicas(deployment: Body) -> tuple[int, str]:
    return deployment["spec"]["replicas"], annotations_of(deployment).get(SURGE, "")


async def test_a_cordoned_node_has_one_more_pod_come_until_its_own_has_gone(stage: Stage) -> None:
    node = await served_on_a_node(stage)
    budget = await stage.until(BUDGET, E0, lambda b: "minAvailable" in b["spec"])
    deployment = await stage.get(DEPLOYMENT, E0)
    assert budget["spec"]["minAvailable"] == 1
    assert [o["uid"] for o in metadata(budget)["ownerReferences"]] == [metadata(deployment)["uid"]]
    (before,) = await pods_of(stage, "tiny-e0")

    stage.nodes.node = ""  # as the scheduler would, which takes another node from now on
    await stage.api.merge(NODE, "", node, {"spec": {"unschedulable": True}})
    await stage.until(DEPLOYMENT, E0, lambda d: replicas(d) == (2, "1"))
    await stage.until(DEPLOYMENT, E0, lambda d: d["status"].get("readyReplicas") == 2)
    for pod in await stage.all(POD):
        if pod["spec"].get("nodeName") == node:  # no kubelet is there to end it
            at_once = f"{POD.path(stage.namespace, metadata(pod)['name'])}?gracePeriodSeconds=0"
            await asyncio.to_thread(stage.server.request, "DELETE", at_once)
    await stage.until(DEPLOYMENT, E0, lambda d: replicas(d) == (1, ""))
    mark = await stage.quiet()
    await stage.quiet()
    assert stage.writes(mark) == []
    (after,) = await pods_of(stage, "tiny-e0")
    assert after != before


async def test_a_budget_goes_with_the_version_that_it_is_of(stage: Stage) -> None:
    await served_on_a_node(stage)
    await stage.until(BUDGET, E0, lambda b: b["spec"])
    gone = await stage.delete(DEPLOYMENT, E0)  # it is made again
    await stage.until(DEPLOYMENT, E0, lambda d: metadata(d)["uid"] != metadata(gone)["uid"])
    again = await stage.get(DEPLOYMENT, E0)

    def of_the_new(budget: Body) -> bool:
        return [o["uid"] for o in metadata(budget)["ownerReferences"]] == [metadata(again)["uid"]]

    await stage.until(BUDGET, E0, of_the_new)


async def test_network_policies_are_taken_as_they_are_made_and_go_again(stage: Stage) -> None:
    await served_on_a_node(stage)
    metrics = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "prom"}}}]
    await stage.apply(mixture(networkPolicy={"metrics": metrics}))
    policy = await stage.until(NETWORK_POLICY, "tiny-workers", lambda p: p["spec"])
    ports = {rule["ports"][0]["port"]: rule["from"] for rule in policy["spec"]["ingress"]}
    assert ports[7102] == metrics
    asked = (await stage.get(MIXTURE, "tiny"))["spec"]["networkPolicy"]
    assert asked["clients"] == [{"podSelector": {}}], "the default says who may ask"
    await stage.apply(mixture())
    await stage.gone(NETWORK_POLICY, "tiny-workers")
    await stage.gone(NETWORK_POLICY, "tiny-router")


def pods_made() -> dict[str, dict[str, Any]]:
    """Return the spec of a pod of every kind that the operator and the chart make."""
    bodies = [*yaml.safe_load_all(GOLDEN.read_text()), *charts.render()]
    found = {"evaluator": yaml.safe_load(EVALUATOR.read_text())["spec"]}
    for body in bodies:
        if body["kind"] in ("Deployment", "Pod"):
            spec = body["spec"] if body["kind"] == "Pod" else body["spec"]["template"]["spec"]
            found[body["metadata"]["name"]] = spec
    return found


# Of these a server without controllers has none, and they are no matter of Pod Security.
_NOT_HERE = ("serviceAccountName", "priorityClassName", "runtimeClassName")


@pytest.fixture
def restricted(kube_server: KubeServer, namespace: str) -> str:
    """The name of a namespace that enforces the restricted profile."""
    path = f"/api/v1/namespaces/{namespace}"
    body = kube_server.request("GET", path)
    body["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] = "restricted"
    kube_server.request("PUT", path, body)
    return namespace


@pytest.mark.parametrize("name", sorted(pods_made()))
def test_every_pod_is_taken_where_the_restricted_profile_is_enforced(
    kube_server: KubeServer, restricted: str, name: str
) -> None:
    spec = {key: value for key, value in pods_made()[name].items() if key not in _NOT_HERE}
    body: dict[str, Any] = {"metadata": {"name": "p"}, "spec": spec}
    path = f"/api/v1/namespaces/{restricted}/pods?dryRun=All"
    assert kube_server.request("POST", path, body)["spec"]["containers"]
    del spec["containers"][0]["securityContext"]
    with pytest.raises(HTTPError) as refusal:
        kube_server.request("POST", path, body)
    with refusal.value as error:
        assert re.search("violates PodSecurity", error.read().decode())
