"""A pod of ours: its spec under the restricted Pod Security profile, whatever it runs.

Which container, variables and labels it has is decided in `template`; the rest is what people set.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from moe_operator.pods import PodSettings

CACHE: Final = "/var/cache/moeops"

_HOST: Final = "kubernetes.io/hostname"
_GRACE_S: Final = 30
# A node that is lost takes its pods with it after this long, instead of five minutes.
_LOST_NODE_S: Final = 2


def pod_spec(
    container: Mapping[str, Any],
    env: Mapping[str, str],
    settings: PodSettings,
    apart: Iterable[tuple[int, Mapping[str, str]]],
) -> dict[str, Any]:
    """Return the pod's spec; `apart` are the pods to keep off its node, with the weight of that."""
    volumes, mounts = _volumes(settings)
    spec: dict[str, Any] = {
        "terminationGracePeriodSeconds": _GRACE_S,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "affinity": {"podAntiAffinity": _anti_affinity(apart)},
        "tolerations": [*_lost_node(), *settings.tolerations],
        "volumes": volumes,
        "containers": [
            {
                **container,
                "env": _env(env, settings),
                "resources": _resources(settings),
                "volumeMounts": mounts,
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
            }
        ],
    }
    optional = {
        "nodeSelector": dict(settings.node_selector),
        "imagePullSecrets": list(settings.image_pull_secrets),
        "priorityClassName": settings.priority_class,
        "runtimeClassName": settings.runtime_class,
        "resourceClaims": list(settings.resource_claims),
    }
    return spec | {name: value for name, value in optional.items() if value}


def reserved_env(settings: PodSettings) -> tuple[str, ...]:
    """Return the variables of these settings that are not passed on: they are the operator's."""
    names = (item["name"] for item in settings.env)
    return tuple(name for name in names if _reserved(name))


def _reserved(name: str) -> bool:
    return (name.startswith("MOE_") and name not in LEFT_TO_PEOPLE) or name in _FROM_POD


# What is told, what experts compute on and how many rows wait is the business of who keeps them.
LEFT_TO_PEOPLE: Final = frozenset(
    {
        "MOE_BATCH_ROWS",
        "MOE_DEVICE",
        "MOE_LOG_FORMAT",
        "MOE_METRICS_DETAIL",
        "MOE_QUEUE_ROWS",
        "MOE_ROWS_AT_WORK",
    }
)
_FROM_POD: Final = {
    "POD_NAME": "metadata.name",
    "POD_NAMESPACE": "metadata.namespace",
    "NODE_NAME": "spec.nodeName",
}


def _env(env: Mapping[str, str], settings: PodSettings) -> list[dict[str, Any]]:
    """Return the operator's variables, the pod's own facts, then what the Mixture adds."""
    facts = [
        {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}
        for name, path in _FROM_POD.items()
    ]
    own = [{"name": name, "value": value} for name, value in env.items()]
    added = [dict(item) for item in settings.env if not _reserved(item["name"])]
    return [*own, *facts, *added]


def _resources(settings: PodSettings) -> dict[str, Any]:
    """Return what the one container gets: also every device that is claimed for the pod."""
    claims = [{"name": claim["name"]} for claim in settings.resource_claims]
    return {**settings.resources, **({"claims": claims} if claims else {})}


def _volumes(settings: PodSettings) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return volumes and mounts: room for downloads, a /tmp, and claims, read-only."""
    volumes: list[dict[str, Any]] = [
        {"name": "cache", "emptyDir": {}},
        {"name": "tmp", "emptyDir": {}},
    ]
    mounts: list[dict[str, Any]] = [
        {"name": "cache", "mountPath": CACHE},
        {"name": "tmp", "mountPath": "/tmp"},
    ]
    names: dict[str, str] = {}
    for claim, path in settings.volume_claims:
        if claim not in names:
            names[claim] = f"claim-{len(names)}"
            source = {"claimName": claim, "readOnly": True}
            volumes.append({"name": names[claim], "persistentVolumeClaim": source})
        mounts.append({"name": names[claim], "mountPath": path, "readOnly": True})
    return volumes, mounts


def _anti_affinity(apart: Iterable[tuple[int, Mapping[str, str]]]) -> dict[str, Any]:
    """Prefer another node than the pods with these labels.

    Preferred, not required: when only one node is left, all replicas must fit there.
    """
    terms = [
        {
            "weight": weight,
            "podAffinityTerm": {
                "topologyKey": _HOST,
                "labelSelector": {"matchLabels": dict(selected)},
            },
        }
        for weight, selected in apart
    ]
    return {"preferredDuringSchedulingIgnoredDuringExecution": terms}


def _lost_node() -> list[dict[str, Any]]:
    return [
        {
            "key": f"node.kubernetes.io/{taint}",
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": _LOST_NODE_S,
        }
        for taint in ("not-ready", "unreachable")
    ]


def port(name: str, number: int) -> dict[str, Any]:
    return {"name": name, "containerPort": number, "protocol": "TCP"}


def probes(at: int, readiness_s: int) -> dict[str, Any]:
    """Return probes by gRPC health checks, readiness every so many seconds.

    Starting may take five minutes on a busy node, and only a minute of silence is death: routers
    notice by themselves, at once, who does not answer.
    """

    def probe(service: str, period_s: int, timeout_s: int, failures: int) -> dict[str, Any]:
        return {
            "grpc": {"port": at, "service": service},
            "periodSeconds": period_s,
            "timeoutSeconds": timeout_s,
            "failureThreshold": failures,
        }

    return {
        "startupProbe": probe("liveness", 1, 5, 300),
        "readinessProbe": probe("readiness", readiness_s, 5, 3),
        "livenessProbe": probe("liveness", 10, 10, 6),
    }
