"""What guards the pods of a mixture, as manifests: from evictions, and from who has no business."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from moe_operator import labels
from moe_operator.drain import Budget
from moe_operator.intent import Delete, Manifest
from moe_operator.network import Network, Peer, ingress, of_operator, of_pods
from moe_operator.render import manifest, of_mixture
from moe_operator.spec import MixtureSpec
from moe_operator.template import (
    CONTROL_PORT,
    LINK_PORT,
    ROUTER_METRICS_PORT,
    ROUTER_PORT,
    WORKER_METRICS_PORT,
)
from moe_operator.world import DeploymentSeen, World


def disruption_budget(mixture: MixtureSpec, seen: DeploymentSeen, budget: Budget) -> Manifest:
    """Return the budget of a Deployment, which owns it; what is not ready may always be evicted."""
    selected = labels.of_component(mixture.meta.name, seen.component)
    if seen.expert:
        selected |= {labels.EXPERT: seen.expert, labels.DIGEST: seen.digest}
    owner = {"apiVersion": "apps/v1", "kind": "Deployment", "name": seen.name, "uid": seen.uid}
    body = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {
            "name": seen.name,
            "namespace": mixture.meta.namespace,
            "labels": {**labels.common(), **selected},
            "ownerReferences": [{**owner, "controller": True}],
        },
        "spec": {
            **budget.spec,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": selected},
        },
    }
    return manifest(body)


def network_policies(mixture: MixtureSpec, operator: str) -> tuple[Manifest, ...]:
    """Return who may reach routers and workers; `operator` is the namespace that it runs in."""
    network, name = mixture.network, mixture.meta.name
    if network is None:
        return ()
    return (
        _policy(
            mixture, labels.routers_name(name), labels.ROUTER, _to_routers(network, name, operator)
        ),
        _policy(
            mixture, labels.workers_name(name), labels.WORKER, _to_workers(network, name, operator)
        ),
    )


Doors = Iterable[tuple[int, Iterable[Peer]]]


def _to_routers(network: Network, name: str, operator: str) -> Doors:
    evaluators = of_pods(labels.of_component(name, labels.EVALUATOR))
    yield ROUTER_PORT, (evaluators, *of_operator(operator), *network.clients)
    yield ROUTER_METRICS_PORT, network.metrics


def _to_workers(network: Network, name: str, operator: str) -> Doors:
    yield LINK_PORT, (of_pods(labels.of_component(name, labels.ROUTER)),)
    yield CONTROL_PORT, of_operator(operator)
    yield WORKER_METRICS_PORT, network.metrics


def _policy(mixture: MixtureSpec, name: str, component: str, doors: Doors) -> Manifest:
    body = of_mixture("networking.k8s.io/v1", "NetworkPolicy", name, mixture)
    spec: dict[str, Any] = {
        "podSelector": {"matchLabels": labels.of_component(mixture.meta.name, component)},
        "policyTypes": ["Ingress"],
        "ingress": list(ingress(doors)),
    }
    return manifest({**body, "spec": spec})


def unwanted(world: World, wanted: Iterable[Manifest]) -> Iterator[Delete]:
    """Give the policies that the Mixture asks for no more."""
    names = {made.body["metadata"]["name"] for made in wanted}
    for seen in world.policies:
        if seen.name not in names:
            yield Delete("NetworkPolicy", seen.name, seen.uid, seen.resource_version)
