"""Names and labels by which the objects of a mixture find each other; nothing is decided here."""

from __future__ import annotations

from typing import Final

from moe_core.rollout import Version
from moe_operator.spec import ExpertSpec, Tried

API_VERSION: Final = "moeops.dev/v1alpha1"
MIXTURE: Final = "moeops.dev/mixture"
COMPONENT: Final = "moeops.dev/component"
EXPERT: Final = "moeops.dev/expert"
GATE: Final = "moeops.dev/gate"
EXPERT_ID: Final = "moeops.dev/expert-id"
VERSION: Final = "moeops.dev/version"
DIGEST: Final = "moeops.dev/digest"
PART: Final = "moeops.dev/part"  # of a table in parts: which
SURGE: Final = "moeops.dev/surge"  # an annotation: pods of a Deployment beyond those wanted
SHA256: Final = "moeops.dev/sha256"  # an annotation: the whole digest

WORKER: Final = "worker"
ROUTER: Final = "router"
EVALUATOR: Final = "evaluator"

_DIGITS = 10


def short(sha256: str) -> str:
    """Return the digits of a digest that names and labels carry."""
    return sha256[:_DIGITS]


def deployment_name(expert: str, sha256: str) -> str:
    """Return the name of the Deployment of one version of an Expert object."""
    return f"{expert}-{short(sha256)}"


def evaluators_name(expert: ExpertSpec, revision: int, golden: str) -> str:
    """Return how the names of the pods begin that try a revision on a golden set."""
    what = "eval" if expert.kind is Tried.EXPERT else "gate-eval"
    return f"{expert.meta.name}-{what}-{revision}-{short(golden)}-"


def routers_name(mixture: str) -> str:
    return f"{mixture}-router"


def workers_name(mixture: str) -> str:
    return f"{mixture}-workers"


def of_component(mixture: str, component: str) -> dict[str, str]:
    """Return the labels of everything of one component; also what Services select."""
    return {MIXTURE: mixture, COMPONENT: component}


def of_version(expert: ExpertSpec, sha256: str) -> dict[str, str]:
    """Return the labels that select the pods of one version."""
    return {
        **of_component(expert.mixture, WORKER),
        EXPERT: expert.meta.name,
        DIGEST: short(sha256),
    }


def of_worker(expert: ExpertSpec, version: Version) -> dict[str, str]:
    """Return all labels of a worker pod and its Deployment."""
    return {
        **common(),
        **of_version(expert, version.sha256),
        EXPERT_ID: expert.expert_id,
        VERSION: version.version,
    }


def of_evaluator(expert: ExpertSpec, version: Version) -> dict[str, str]:
    """Return all labels of a pod that tries a version of an expert or a gate on a golden set."""
    if expert.kind is Tried.EXPERT:
        return {**of_worker(expert, version), COMPONENT: EVALUATOR}
    return {
        **common(),
        **of_component(expert.mixture, EVALUATOR),
        GATE: expert.meta.name,
        DIGEST: short(version.sha256),
        VERSION: version.version,
    }


def common() -> dict[str, str]:
    return {
        "app.kubernetes.io/name": "moeops",
        "app.kubernetes.io/managed-by": "moeops-operator",
    }
