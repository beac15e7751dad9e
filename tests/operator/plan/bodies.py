"""Objects as the API server gives them, for the tests of decisions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

NAMESPACE = "models"
MIXTURE = "tiny"


def sha(expert: str, version: str) -> str:
    """Return the digest of a version: readable, and unlike all others."""
    return f"{expert}{version}".encode().hex().ljust(64, "0")[:64]


def meta(name: str, created: int = 0) -> dict[str, Any]:
    return {
        "name": name,
        "namespace": NAMESPACE,
        "uid": f"uid-{name}",
        "generation": 1,
        "creationTimestamp": f"2026-01-01T00:00:{created:02d}Z",
    }


def mixture(**spec: Any) -> dict[str, Any]:
    fields = {"hiddenSize": 64, "layers": 2, "dtype": "BFloat16", **spec}
    return {"metadata": meta(MIXTURE), "spec": fields}


def steps(*weights: int, pause: int = 2) -> list[dict[str, int]]:
    return [{"weightPercent": weight, "pauseSeconds": pause} for weight in weights]


def expert(name: str, version: str = "v1", *, created: int = 0, **spec: Any) -> dict[str, Any]:
    """Return an Expert whose rollouts are short: two steps of two seconds, five requests each."""
    rollout = {
        "steps": steps(25, 100),
        "minRequests": 5,
        "progressDeadlineSeconds": 20,
        "scaleDownDelaySeconds": 5,
    }
    fields = {
        "mixtureRef": {"name": MIXTURE},
        "expertId": name,
        "role": "Routed",
        "layers": [0, 1],
        **versioned(name, version),
        "replicas": 1,
        **spec,
    }
    fields["rollout"] = {**rollout, **spec.get("rollout", {})}
    return {"metadata": meta(name, created), "spec": fields}


def versioned(name: str, version: str) -> dict[str, Any]:
    uri = f"file:///artifacts/{name}-{version}.safetensors"
    return {"version": version, "artifact": {"uri": uri, "sha256": sha(name, version)}}


def evaluated(**evaluation: Any) -> dict[str, Any]:
    """Return fields of a Mixture whose candidates must pass a golden set."""
    artifact = {"uri": "file:///artifacts/golden.safetensors", "sha256": "7" * 64}
    trunk = {"uri": "file:///artifacts/trunk", "sha256": "8" * 64}
    return {"trunk": trunk, "evaluation": {"artifact": artifact, **evaluation}}


# A gate is looked at in the shadow, then on half of the sessions for a second.
QUICK_GATE: Final = {
    "steps": [{"weightPercent": 50, "pauseSeconds": 1}],
    "minRequests": 1,
    "scaleDownDelaySeconds": 2,
    "analysis": {"minShadowRows": 20},
}


def gate(
    experts: Sequence[str],
    version: str = "g1",
    *,
    name: str = "gate",
    created: int = 0,
    **spec: Any,
) -> dict[str, Any]:
    fields = {
        "mixtureRef": {"name": MIXTURE},
        **versioned(name, version),
        "experts": [{"id": expert_id} for expert_id in experts],
        "policy": {"type": "TopK", "topK": min(2, len(experts))},
        "rollout": QUICK_GATE,
        **spec,
    }
    return {"metadata": meta(name, created), "spec": fields}


def override(
    name: str, target: str, action: str, *, kind: str = "Expert", **spec: Any
) -> dict[str, Any]:
    fields: Mapping[str, Any] = {
        "targetRef": {"kind": kind, "name": target},
        "action": action,
        **spec,
    }
    return {"metadata": meta(name), "spec": dict(fields)}


def restore(epoch: int, **instead_of: str) -> dict[str, Any]:
    """Return ann's Override of the Mixture; `gate` is the Gate, all other names are Experts."""
    replaces = [
        {"kind": "Gate" if name == "gate" else "Expert", "name": name, "insteadOf": version}
        for name, version in instead_of.items()
    ]
    reference = {"kind": "Mixture", "name": MIXTURE}
    spec: dict[str, Any] = {
        "targetRef": reference,
        "epoch": epoch,
        "replaces": replaces,
        "requestedBy": "ann",
    }
    return override("back", "", "Serve", **spec)
