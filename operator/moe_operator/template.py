"""The pods of workers, routers and evaluators, as templates.

A worker's template is rendered once for each revision and frozen with it; everything that a
template depends on is an argument here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from moe_core.rollout import Version
from moe_operator import labels, tenants, tls
from moe_operator.golden import Trial
from moe_operator.pod import CACHE, pod_spec, port, probes
from moe_operator.spec import ExpertSpec, MixtureSpec
from moe_operator.tls import Part, TlsMode

LINK_PORT: Final = 7100
CONTROL_PORT: Final = 7101
ROUTER_PORT: Final = 7000
WORKER_METRICS_PORT: Final = 7102
ROUTER_METRICS_PORT: Final = 7002


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
    health = [port("health", tls.WORKER_HEALTH_PORT)] if settings.secure else []
    container = {
        "name": labels.WORKER,
        "image": mixture.workers.image or settings.worker_image,
        "ports": [
            port(tls.LINK if settings.secure else "link", LINK_PORT),
            port("control", CONTROL_PORT),
            port("metrics", WORKER_METRICS_PORT),
            *health,
        ],
        **probes(tls.WORKER_HEALTH_PORT if settings.secure else CONTROL_PORT, 3),
    }
    apart = [(100, labels.of_version(expert, version.sha256))]
    if expert.backup:
        backup = labels.of_component(expert.mixture, labels.WORKER)
        apart.append((50, {**backup, labels.EXPERT_ID: expert.backup}))
    spec = pod_spec(container, env, mixture.workers, apart)
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
    ports = [port("metrics", ROUTER_METRICS_PORT)]
    if settings.tls is not TlsMode.REQUIRED:
        ports.insert(0, port(tls.PLAIN_EDGE, ROUTER_PORT))
    if settings.secure:
        ports += [port(tls.EDGE, tls.ROUTER_TLS_PORT), port("health", tls.ROUTER_HEALTH_PORT)]
    container = {
        "name": labels.ROUTER,
        "image": mixture.routers.pods.image or settings.router_image,
        "ports": ports,
        **probes(tls.ROUTER_HEALTH_PORT if settings.secure else ROUTER_PORT, 2),
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
    spec = pod_spec(container, env, mixture.routers.pods, [(100, selected)])
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
    router_port = tls.ROUTER_TLS_PORT if settings.secure else ROUTER_PORT
    env = {
        "MOE_EVAL_ROUTERS": f"{labels.routers_name(name)}:{router_port}",
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
    spec = pod_spec(container, env, mixture.evaluators, ())
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
