"""The narrow list of what a Mixture may set in the pods that are made for it.

Reads and nothing else. Whatever is not here cannot be set from a custom resource: who may write
a Mixture must not thereby reach the secrets and service accounts of its namespace.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self

from moe_core.document import Reader


class ServiceType(StrEnum):
    """How clients reach the routers."""

    CLUSTER_IP = "ClusterIP"
    NODE_PORT = "NodePort"
    LOAD_BALANCER = "LoadBalancer"


@dataclass(frozen=True, slots=True)
class PodSettings:
    """The narrow list of what a Mixture may set in its pods, in Kubernetes' own form."""

    image: str = ""
    image_pull_secrets: tuple[Mapping[str, Any], ...] = ()
    resources: Mapping[str, Any] = field(default_factory=dict)
    resource_claims: tuple[Mapping[str, Any], ...] = ()  # of devices, each of a template
    env: tuple[Mapping[str, Any], ...] = ()
    volume_claims: tuple[tuple[str, str], ...] = ()  # (claim name, mount path)
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Mapping[str, Any], ...] = ()
    priority_class: str = ""
    runtime_class: str = ""

    @classmethod
    def read(cls, reader: Reader) -> Self:
        selector, resources = (
            {} if child is None else child.value
            for child in (reader.optional_child("nodeSelector"), reader.optional_child("resources"))
        )
        return cls(
            image=reader.text("image", default=""),
            image_pull_secrets=tuple(item.value for item in reader.items("imagePullSecrets")),
            resources=resources,
            resource_claims=tuple(
                {key: item.text(key) for key in ("name", "resourceClaimTemplateName")}
                for item in reader.items("resourceClaims")
            ),
            env=tuple(
                {"name": item.text("name"), "value": item.text("value")}
                for item in reader.items("env")
            ),
            volume_claims=tuple(
                (item.text("claimName"), item.text("mountPath"))
                for item in reader.items("volumeClaims")
            ),
            node_selector=selector,
            tolerations=tuple(item.value for item in reader.items("tolerations")),
            priority_class=reader.text("priorityClassName", default=""),
            runtime_class=reader.text("runtimeClassName", default=""),
        )


@dataclass(frozen=True, slots=True)
class RouterSettings:
    """How the routers of a mixture run and are reached; `node_port` 0 is chosen by Kubernetes."""

    pods: PodSettings = PodSettings()
    replicas: int = 2
    service: ServiceType = ServiceType.CLUSTER_IP
    node_port: int = 0

    @classmethod
    def read(cls, reader: Reader) -> Self:
        service = reader.optional_child("service") or Reader({}, f"{reader.path}.service")
        return cls(
            pods=PodSettings.read(reader),
            replicas=reader.integer("replicas", high=64, default=2),
            service=service.enum("type", ServiceType, default=ServiceType.CLUSTER_IP),
            node_port=service.integer("nodePort", high=65535, default=0),
        )
