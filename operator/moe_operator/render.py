"""The child objects of a mixture as manifests: its routers, their access, and its workers.

Everything that server-side apply needs and nothing that depends on what is observed, except the
number of replicas, which is an argument.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

from moe_core.rollout import Version
from moe_operator import labels, tls
from moe_operator.intent import Manifest
from moe_operator.pods import ServiceType
from moe_operator.spec import ExpertSpec, Meta, MixtureSpec
from moe_operator.template import (
    LINK_PORT,
    ROUTER_PORT,
    Settings,
    router_template,
)
from moe_operator.tls import TlsMode

ROUTERS_COME_UP_S: Final = 600

_RBAC = "rbac.authorization.k8s.io"


def manifest(body: Mapping[str, Any]) -> Manifest:
    """Return the body with the hash of its canonical form."""
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return Manifest(body, hashlib.sha256(text.encode()).hexdigest()[:16])


def worker_deployment(
    expert: ExpertSpec,
    template: Mapping[str, object],
    version: Version,
    replicas: int,
    surge: int = 0,
) -> Manifest:
    """Return the Deployment of one expert version, with the template frozen in its revision.

    `surge` are the pods that it has besides, while a node is drained.
    """
    body = _object(
        "apps/v1",
        "Deployment",
        labels.deployment_name(expert.meta.name, version.sha256),
        owner=("Expert", expert.meta),
        labels_=labels.of_worker(expert, version),
    )
    body["metadata"]["annotations"] = {labels.SHA256: version.sha256, **_surge(surge)}
    body["spec"] = _deployment_spec(
        replicas + surge,
        labels.of_version(expert, version.sha256),
        template,
        expert.rollout.progress_deadline_s,
    )
    return manifest(body)


def evaluator_pod(
    name: str, expert: ExpertSpec, version: Version, spec: Mapping[str, Any]
) -> Manifest:
    """Return the pod that tries a version of an expert or a gate on a golden set."""
    owner, own = (expert.kind.value, expert.meta), labels.of_evaluator(expert, version)
    body = _object("v1", "Pod", name, owner=owner, labels_=own)
    body["spec"] = dict(spec)
    return manifest(body)


def _surge(pods: int) -> dict[str, str]:
    return {labels.SURGE: str(pods)} if pods else {}


def mixture_children(
    mixture: MixtureSpec, settings: Settings, surge: int = 0
) -> tuple[Manifest, ...]:
    """Return what a mixture has once: routers, what they may read, and two Services.

    `surge` are the routers that there are besides, while a node is drained.
    """
    return tuple(
        manifest(body)
        for body in (
            _service_account(mixture),
            _role(mixture),
            _role_binding(mixture),
            _workers_service(mixture, settings.secure),
            _routers_service(mixture, settings.tls),
            _routers(mixture, settings, surge),
        )
    )


def _routers(mixture: MixtureSpec, settings: Settings, surge: int) -> dict[str, Any]:
    body = of_mixture("apps/v1", "Deployment", labels.routers_name(mixture.meta.name), mixture)
    if surge:
        body["metadata"]["annotations"] = _surge(surge)
    selector = labels.of_component(mixture.meta.name, labels.ROUTER)
    template = router_template(mixture, settings)
    replicas = mixture.routers.replicas + surge
    body["spec"] = _deployment_spec(replicas, selector, template, ROUTERS_COME_UP_S)
    return body


def _deployment_spec(
    replicas: int, selector: Mapping[str, str], template: Mapping[str, object], deadline_s: int
) -> dict[str, Any]:
    return {
        "replicas": replicas,
        "revisionHistoryLimit": 1,
        "progressDeadlineSeconds": deadline_s,
        "strategy": {
            "type": "RollingUpdate",
            "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1},
        },
        "selector": {"matchLabels": dict(selector)},
        "template": dict(template),
    }


def _routers_service(mixture: MixtureSpec, mode: TlsMode) -> dict[str, Any]:
    """Clients from outside stay on their node, so that a lost node loses only its own.

    The port that all clients can use is the first, and has the node's port that is asked for.
    """
    routers = mixture.routers
    body = of_mixture("v1", "Service", labels.routers_name(mixture.meta.name), mixture)
    plain: dict[str, Any] = {"name": "grpc", "port": ROUTER_PORT, "targetPort": "grpc"}
    plain |= {"protocol": "TCP", "appProtocol": "kubernetes.io/h2c"}
    secure: dict[str, Any] = {"name": tls.EDGE, "port": tls.ROUTER_TLS_PORT, "protocol": "TCP"}
    secure["targetPort"] = tls.EDGE
    ports = {
        TlsMode.DISABLED: [plain],
        TlsMode.PERMITTED: [plain, secure],
        TlsMode.REQUIRED: [secure],
    }[mode]
    if routers.node_port and routers.service is not ServiceType.CLUSTER_IP:
        ports[0]["nodePort"] = routers.node_port
    body["spec"] = {
        "type": routers.service.value,
        "selector": labels.of_component(mixture.meta.name, labels.ROUTER),
        "ports": ports,
    }
    if routers.service is not ServiceType.CLUSTER_IP:
        body["spec"]["externalTrafficPolicy"] = "Local"
    return body


def _workers_service(mixture: MixtureSpec, secure: bool) -> dict[str, Any]:
    """Routers find workers here, also those that are not ready: links decide, not probes.

    A worker is listed under the port that its template names, and so whether its links have TLS.
    """
    ports = [{"name": "link", "port": LINK_PORT, "targetPort": "link", "protocol": "TCP"}]
    if secure:
        number = LINK_PORT + 10  # of the Service, which has no address: nobody connects to it
        ports.append({"name": tls.LINK, "port": number, "targetPort": tls.LINK, "protocol": "TCP"})
    body = of_mixture("v1", "Service", labels.workers_name(mixture.meta.name), mixture)
    body["spec"] = {
        "clusterIP": "None",
        "publishNotReadyAddresses": True,
        "selector": labels.of_component(mixture.meta.name, labels.WORKER),
        "ports": ports,
    }
    return body


def _service_account(mixture: MixtureSpec) -> dict[str, Any]:
    return of_mixture("v1", "ServiceAccount", labels.routers_name(mixture.meta.name), mixture)


def _role(mixture: MixtureSpec) -> dict[str, Any]:
    """Routers read their own table, its parts, and where the workers of the namespace are.

    Names of parts come and go with their content, so that no rule can list them.
    """
    body = of_mixture(f"{_RBAC}/v1", "Role", labels.routers_name(mixture.meta.name), mixture)
    verbs = ["get", "list", "watch"]
    body["rules"] = [
        {
            "apiGroups": ["moeops.dev"],
            "resources": ["routingtables"],
            "resourceNames": [mixture.meta.name],
            "verbs": verbs,
        },
        {
            "apiGroups": ["apps"],
            "resources": ["controllerrevisions"],
            "verbs": ["get"],
        },
        {
            "apiGroups": ["discovery.k8s.io"],
            "resources": ["endpointslices"],
            "verbs": verbs,
        },
    ]
    return body


def _role_binding(mixture: MixtureSpec) -> dict[str, Any]:
    name = labels.routers_name(mixture.meta.name)
    body = of_mixture(f"{_RBAC}/v1", "RoleBinding", name, mixture)
    body["roleRef"] = {"apiGroup": _RBAC, "kind": "Role", "name": name}
    namespace = mixture.meta.namespace
    body["subjects"] = [{"kind": "ServiceAccount", "name": name, "namespace": namespace}]
    return body


def of_mixture(api: str, kind: str, name: str, mixture: MixtureSpec) -> dict[str, Any]:
    """Return an object that a Mixture owns, without what it says."""
    component = labels.WORKER if name == labels.workers_name(mixture.meta.name) else labels.ROUTER
    own = {**labels.common(), **labels.of_component(mixture.meta.name, component)}
    return _object(api, kind, name, owner=("Mixture", mixture.meta), labels_=own)


def _object(
    api: str, kind: str, name: str, *, owner: tuple[str, Meta], labels_: Mapping[str, str]
) -> dict[str, Any]:
    owner_kind, meta = owner
    reference = {
        "apiVersion": labels.API_VERSION,
        "kind": owner_kind,
        "name": meta.name,
        "uid": meta.uid,
        "controller": True,
    }
    return {
        "apiVersion": api,
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": meta.namespace,
            "labels": dict(labels_),
            "ownerReferences": [reference],
        },
    }
