"""Objects as people and controllers write them, for tests of the engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Body = dict[str, Any]
NAMESPACE = "default"


def sha(letter: str) -> str:
    return letter * 64


def own(kind: str, name: str, spec: Mapping[str, Any], **meta: Any) -> Body:
    """Return an object of one of our kinds."""
    metadata = {"name": name, "namespace": NAMESPACE, **meta}
    body = {"apiVersion": "moeops.dev/v1alpha1", "kind": kind, "metadata": metadata}
    return {**body, "spec": dict(spec)}


def mixture(name: str = "tiny", **spec: Any) -> Body:
    fields = {"hiddenSize": 64, "layers": 2, "dtype": "Float32", "routers": {"replicas": 1}}
    return own("Mixture", name, {**fields, **spec})


def golden_set() -> dict[str, Any]:
    """Return fields of a Mixture whose candidates must pass a golden set."""
    artifact = {"uri": "file:///artifacts/golden.safetensors", "sha256": sha("7")}
    trunk = {"uri": "file:///artifacts/trunk", "sha256": sha("8")}
    return {"trunk": trunk, "evaluation": {"artifact": artifact}}


def expert(expert_id: str, digest: str = "", version: str = "v1", **spec: Any) -> Body:
    fields = {
        "mixtureRef": {"name": "tiny"},
        "expertId": expert_id,
        "layers": [0, 1],
        "version": version,
        "artifact": {"uri": f"file:///artifacts/{version}", "sha256": digest or sha("a")},
    }
    return own("Expert", f"tiny-{expert_id}", {**fields, **spec})


def gate(
    *expert_ids: str,
    digest: str = "",
    version: str = "v1",
    accepts: Mapping[str, Sequence[str]] | None = None,
    name: str = "tiny-gate",
    **layers: Sequence[int],
) -> Body:
    """Return a Gate; `accepts` are the versions that fit it, by expert."""
    known = accepts or {}
    spec = {
        "mixtureRef": {"name": "tiny"},
        "version": version,
        "artifact": {"uri": f"file:///artifacts/gate-{version}", "sha256": digest or sha("9")},
        "experts": [
            {"id": e, **({"versions": list(known[e])} if e in known else {})} for e in expert_ids
        ],
        "policy": {"type": "TopK", "topK": 1},
        # Nobody scores rows here: the shadow is in the tests of the planner.
        "rollout": {
            "steps": [{"weightPercent": 100, "pauseSeconds": 1}],
            "minRequests": 0,
            "shadowPercent": 0,
            "scaleDownDelaySeconds": 1,
        },
        **layers,
    }
    return own("Gate", name, spec)


def override(name: str, target: str, action: str, **spec: Any) -> Body:
    reference = {"kind": "Expert", "name": target}
    return own("Override", name, {"targetRef": reference, "action": action, **spec})


def labelled(
    kind: str, name: str, mixture_name: str = "tiny", api: str = "v1", **fields: Any
) -> Body:
    """Return a built-in object that belongs to a mixture."""
    labels = {"moeops.dev/mixture": mixture_name, **fields.pop("labels", {})}
    metadata = {"name": name, "namespace": NAMESPACE, "labels": labels}
    return {"apiVersion": api, "kind": kind, "metadata": metadata, **fields}
