"""The pods of workers and routers, as templates under the restricted Pod Security profile.

A worker's template is rendered once for each revision and frozen with it; everything that a
template depends on is an argument here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from moe_core.rollout import Version
from moe_operator import labels, tenants, tls
from moe_operator.golden import Trial
from moe_operator.pods import PodSettings
from moe_operator.spec import ExpertSpec, MixtureSpec
from moe_operator.tls import Part, TlsMode

LINK_PORT: Final = 7100
CONTROL_PORT: Final = 7101
ROUTER_PORT: Final = 7000
WORKER_METRICS_PORT: Final = 7102
ROUTER_METRICS_PORT: Final = 7002
CACHE: Final = "/var/cache/moeops"

_HOST: Final = "kubernetes.io/hostname"
_GRACE_S: Final = 30
# A node that is lost takes its pods with it after this long, instead of five minutes.
_LOST_NODE_S: Final = 2


@dataclass(frozen=True, slots=True)
class Settings:
    """What the operator was started with: images for Mixtures that name none, where it is, TLS."""

    worker_image: str
    router_image: str
    evaluator_image: str = ""
    namespace: str = ""  # where the operator runs; empty outside of the cluster
    tls: TlsMode = TlsMode.DISABLED
    operator: str = ""  # the name in the operator's certificate

    @property
    def secure(self) -> bool:
        return self.tls is not TlsMode.DISABLED


def worker_template(
    mixture: MixtureSpec, expert: ExpertSpec, version: Version, settings: Settings
) -> dict[str, Any]:
    """Return the pod template that serves one version of an expert."""
    assignment = {
        "expertId": expert.expert_id,
        "version": version.version,
        "uri": version.uri,
        "sha256": version.sha256,
        "layers": list(expert.layers),
    }
    env = {
        "MOE_ASSIGNMENT": json.dumps([assignment], sort_keys=True),
        "MOE_HIDDEN_SIZE": str(mixture.hidden_size),
        "MOE_DTYPE": mixture.dtype.value,
        "MOE_NUMERICS": mixture.numerics.value,
        "MOE_CACHE": CACHE,
        "MOE_MIXTURE": mixture.meta.name,
        **_certified(settings),
    }
    health = [_port("health", tls.WORKER_HEALTH_PORT)] if settings.secure else []
    container = {
        "name": labels.WORKER,
        "image": mixture.workers.image or settings.worker_image,
        "ports": [
            _port(tls.LINK if settings.secure else "link", LINK_PORT),
            _port("control", CONTROL_PORT),
            _port("metrics", WORKER_METRICS_PORT),
            *health,
        ],
        **_probes(tls.WORKER_HEALTH_PORT if settings.secure else CONTROL_PORT, 3),
    }
    apart = [(100, labels.of_version(expert, version.sha256))]
    if expert.backup:
        backup = labels.of_component(expert.mixture, labels.WORKER)
        apart.append((50, {**backup, labels.EXPERT_ID: expert.backup}))
    spec = _pod(container, env, mixture.workers, apart)
    if settings.secure:
        spec = tls.with_folder(spec, mixture.meta.name, Part.WORKERS)
    spec["automountServiceAccountToken"] = False
    metadata = {
        "labels": labels.of_worker(expert, version),
        "annotations": {labels.SHA256: version.sha256},
    }
    return {"metadata": metadata, "spec": spec}


def router_template(mixture: MixtureSpec, settings: Settings) -> dict[str, Any]:
    """Return the pod template of a mixture's routers."""
    name = mixture.meta.name
    selected = labels.of_component(name, labels.ROUTER)
    ports = [_port("metrics", ROUTER_METRICS_PORT)]
    if settings.tls is not TlsMode.REQUIRED:
        ports.insert(0, _port(tls.PLAIN_EDGE, ROUTER_PORT))
    if settings.secure:
        ports += [_port(tls.EDGE, tls.ROUTER_TLS_PORT), _port("health", tls.ROUTER_HEALTH_PORT)]
    container = {
        "name": labels.ROUTER,
        "image": mixture.routers.pods.image or settings.router_image,
        "ports": ports,
        **_probes(tls.ROUTER_HEALTH_PORT if settings.secure else ROUTER_PORT, 2),
    }
    env = {
        "MOE_MIXTURE": name,
        "MOE_CACHE": CACHE,
        **_certified(settings),
        **tenants.env(mixture.tenants),
    }
    if settings.tls is TlsMode.REQUIRED:
        # What is let into the pod by the API server, `kubectl moe routing`, still needs none.
        env["MOE_LISTEN"] = f"127.0.0.1:{ROUTER_PORT}"
    spec = _pod(container, env, mixture.routers.pods, [(100, selected)])
    if settings.secure:
        spec = tls.with_folder(spec, name, Part.ROUTER)
    if mixture.tenants:
        spec = tenants.with_digests(spec, name)
    spec["serviceAccountName"] = labels.routers_name(name)
    return {"metadata": {"labels": {**labels.common(), **selected}}, "spec": spec}


def evaluator_spec(
    mixture: MixtureSpec,
    expert: ExpertSpec,
    trial: Trial,
    uri: str,
    settings: Settings,
) -> dict[str, Any]:
    """Return the spec of the pod that tries a candidate on the golden set at `uri`.

    It ends by itself, and what it has to say is its termination message.
    """
    name = mixture.meta.name
    port = tls.ROUTER_TLS_PORT if settings.secure else ROUTER_PORT
    env = {
        "MOE_EVAL_ROUTERS": f"{labels.routers_name(name)}:{port}",
        "MOE_EVAL_MIXTURE": name,
        f"MOE_EVAL_{trial.kind.upper()}": trial.expert_id,
        "MOE_EVAL_STABLE": trial.stable,
        "MOE_EVAL_CANDIDATE": trial.candidate,
        "MOE_EVAL_TRUNK_URI": mixture.trunk_uri,
        "MOE_EVAL_TRUNK_SHA256": mixture.trunk_sha256,
        "MOE_EVAL_GOLDEN_URI": uri,
        "MOE_EVAL_GOLDEN_SHA256": trial.golden,
        "MOE_CACHE": CACHE,
        **({"MOE_EVAL_BESIDE": trial.told_beside} if trial.beside else {}),
        **({"MOE_EVAL_TLS": tls.FOLDER} if settings.secure else {}),
    }
    container = {
        "name": labels.EVALUATOR,
        "image": mixture.evaluators.image or settings.evaluator_image,
        "command": ["python3", "-m", "moe_client.evaluation"],
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    spec = _pod(container, env, mixture.evaluators, ())
    if settings.secure:
        spec = tls.with_folder(spec, name, Part.CLIENT)
    if mixture.tenants:
        spec = tenants.with_token(spec, name)
    spec["automountServiceAccountToken"] = False
    spec["restartPolicy"] = "Never"
    spec["activeDeadlineSeconds"] = expert.rollout.evidence_deadline_s
    return spec


def _certified(settings: Settings) -> dict[str, str]:
    if not settings.secure:
        return {}
    return {"MOE_TLS": tls.FOLDER, "MOE_TLS_OPERATOR": settings.operator}


def _pod(
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
    return (name.startswith("MOE_") and name not in _LEFT_TO_PEOPLE) or name in _FROM_POD


# How much metrics tell, how logs look and when rows wait is the business of who keeps them.
_LEFT_TO_PEOPLE: Final = frozenset({"MOE_METRICS_DETAIL", "MOE_LOG_FORMAT", "MOE_ROWS_AT_WORK"})
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


def _port(name: str, number: int) -> dict[str, Any]:
    return {"name": name, "containerPort": number, "protocol": "TCP"}


def _probes(port: int, readiness_s: int) -> dict[str, Any]:
    """Return probes by gRPC health checks, readiness every so many seconds.

    Starting may take five minutes on a busy node, and only a minute of silence is death: routers
    notice by themselves, at once, who does not answer.
    """

    def probe(service: str, period_s: int, timeout_s: int, failures: int) -> dict[str, Any]:
        return {
            "grpc": {"port": port, "service": service},
            "periodSeconds": period_s,
            "timeoutSeconds": timeout_s,
            "failureThreshold": failures,
        }

    return {
        "startupProbe": probe("liveness", 1, 5, 300),
        "readinessProbe": probe("readiness", readiness_s, 5, 3),
        "livenessProbe": probe("liveness", 10, 10, 6),
    }
