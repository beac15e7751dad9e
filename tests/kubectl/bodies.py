"""Objects as the API server would show them, for tests of `kubectl moe`."""

from __future__ import annotations

from typing import Any

Body = dict[str, Any]
CREATED = "2026-01-01T00:00:00Z"


def _metadata(name: str) -> Body:
    uid = f"uid of {name}"
    return {"name": name, "uid": uid, "generation": 1, "creationTimestamp": CREATED}


def mixture(name: str = "tiny", **status: Any) -> Body:
    ready = {"type": "Ready", "status": "True", "reason": "Serving", "message": ""}
    return {
        "kind": "Mixture",
        "metadata": _metadata(name),
        "spec": {"hiddenSize": 8, "layers": 2, "dtype": "BFloat16"},
        "status": {
            "observedGeneration": 1,
            "epoch": 4,
            "routers": "2/2",
            "experts": "8/8",
            "conditions": [ready],
            **status,
        },
    }


def expert(name: str = "tiny-e3", version: str = "v1", **status: Any) -> Body:
    ready = {"type": "Ready", "status": "True", "reason": "Serving", "message": ""}
    return {
        "kind": "Expert",
        "metadata": _metadata(name),
        "spec": {"mixtureRef": {"name": "tiny"}, "expertId": "e3", "version": version},
        "status": {
            "observedGeneration": 1,
            "version": "v1",
            "sha256": sha("v1"),
            "ready": "2/2",
            "conditions": [ready],
            **status,
        },
    }


def rollout(outcome: str, version: str = "v2", revision: int = 2, **more: Any) -> Body:
    return {
        "outcome": outcome,
        "version": version,
        "sha256": sha(version),
        "revision": revision,
        "step": 2,
        "steps": 4,
        "message": f"{outcome}: as the test wants it",
        **more,
    }


def gate(version: str = "g1", **status: Any) -> Body:
    return {
        "kind": "Gate",
        "metadata": _metadata("tiny-gate"),
        "spec": {"mixtureRef": {"name": "tiny"}, "version": version, "policy": {"type": "TopK"}},
        "status": {"observedGeneration": 1, "version": version, **status},
    }


def named(version: str) -> Body:
    return {"version": version, "sha256": sha(version), "uri": f"file:///{version}"}


def epoch(number: int, gate_version: str = "g1", **experts: str) -> Body:
    """Return a kept epoch; experts are named without the mixture's name."""
    stable = {**named(gate_version), "experts": list(experts), "topK": 1}
    return {
        "kind": "ControllerRevision",
        "metadata": {
            "name": f"tiny.{number}",
            "creationTimestamp": CREATED,
            "labels": {"moeops.dev/mixture": "tiny"},
        },
        "revision": number,
        "data": {
            "experts": {f"tiny-{name}": named(version) for name, version in experts.items()},
            "gates": [{"name": "tiny-gate", "layers": [0], "stable": stable}],
        },
    }


def revision(number: int, version: str, name: str = "tiny-e3") -> Body:
    return {
        "kind": "ControllerRevision",
        "metadata": {
            "name": f"{name}-{number}",
            "creationTimestamp": CREATED,
            "labels": {"moeops.dev/mixture": "tiny", "moeops.dev/expert": name},
        },
        "revision": number,
        "data": {
            "version": {"version": version, "sha256": sha(version), "uri": "file:///x"},
            "template": {"spec": {"containers": [{"image": f"worker:{version}"}]}},
        },
    }


def deployment(version: str, ready: int = 2, name: str = "tiny-e3") -> Body:
    return {
        "kind": "Deployment",
        "metadata": {
            "name": f"{name}-{sha(version)[:10]}",
            "creationTimestamp": CREATED,
            "labels": {
                "moeops.dev/mixture": "tiny",
                "moeops.dev/expert": name,
                "moeops.dev/digest": sha(version)[:10],
                "moeops.dev/version": version,
            },
        },
        "spec": {"replicas": 2},
        "status": {"readyReplicas": ready},
    }


def pod(name: str, version: str, *, ready: bool = True, **status: Any) -> Body:
    condition = {"type": "Ready", "status": "True" if ready else "False"}
    return {
        "kind": "Pod",
        "metadata": {
            "name": name,
            "creationTimestamp": CREATED,
            "labels": {
                "moeops.dev/mixture": "tiny",
                "moeops.dev/component": "worker",
                "moeops.dev/expert": "tiny-e3",
                "moeops.dev/digest": sha(version)[:10],
            },
        },
        "spec": {"nodeName": "node-1"},
        "status": {"phase": "Running", "conditions": [condition], **status},
    }


def override(action: str, state: str = "Active", **spec: Any) -> Body:
    return {
        "kind": "Override",
        "metadata": {"name": f"tiny-e3-{action.lower()}-x", "creationTimestamp": CREATED},
        "spec": {"targetRef": {"kind": "Expert", "name": "tiny-e3"}, "action": action, **spec},
        "status": {"state": state},
    }


def sha(version: str) -> str:
    """Return a digest that tells versions apart in a test's output."""
    return (version.encode().hex() * 64)[:64]
