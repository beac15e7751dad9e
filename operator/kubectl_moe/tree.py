"""Builds the tree of `kubectl moe status`: mixture → gates, experts → versions → pods.

Pure: bodies in, nodes out. How a node is drawn is the business of `draw`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kubectl_moe.decide import targets
from kubectl_moe.health import Diagnosis, Health, condition, diagnose

Body = Mapping[str, Any]

MIXTURE_LABEL = "moeops.dev/mixture"
EXPERT_LABEL = "moeops.dev/expert"
GATE_LABEL = "moeops.dev/gate"
PART_LABEL = "moeops.dev/part"
DIGEST_LABEL = "moeops.dev/digest"
VERSION_LABEL = "moeops.dev/version"
COMPONENT_LABEL = "moeops.dev/component"


@dataclass(frozen=True, slots=True)
class Node:
    """One line of the tree, and what hangs below it."""

    name: str
    kind: str
    status: str
    created: str
    info: str = ""
    health: Health = Health.HEALTHY
    children: tuple[Node, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class Objects:
    """What belongs to one namespace, as read."""

    mixtures: Sequence[Body]
    gates: Sequence[Body]
    experts: Sequence[Body]
    deployments: Sequence[Body]
    pods: Sequence[Body]
    overrides: Sequence[Body] = ()


def labels(body: Body) -> Mapping[str, str]:
    found: Mapping[str, str] = body["metadata"].get("labels") or {}
    return found


def mixture_node(mixture: Body, objects: Objects) -> Node:
    """Return the whole tree of a mixture."""
    name = mixture["metadata"]["name"]
    diagnosis = diagnose(mixture)
    routers = [
        pod_node(pod)
        for pod in objects.pods
        if labels(pod).get(MIXTURE_LABEL) == name and labels(pod).get(COMPONENT_LABEL) == "router"
    ]
    gates = [gate_node(g, objects) for g in objects.gates if _belongs(g, name)]
    experts = [expert_node(e, objects) for e in objects.experts if _belongs(e, name)]
    status = mixture.get("status", {})
    info = f"epoch {status.get('epoch', '-')}; routers {status.get('routers', '-')}"
    router_node = Node(
        f"{name}-router",
        "Routers",
        status.get("routers", "-"),
        mixture["metadata"].get("creationTimestamp", ""),
        health=_ready_health(status.get("routers", "")),
        children=tuple(routers),
    )
    decided = _override_nodes(mixture, objects)
    return _node(mixture, diagnosis, info, (*decided, router_node, *gates, *experts))


def gate_node(gate: Body, objects: Objects) -> Node:
    """Return a gate with what was decided about it, and the evidence on its candidate."""
    served = gate.get("status", {}).get("version")
    info = _with_candidate(f"serves {served}" if served else "serves nothing yet", gate)
    evidence = evidence_nodes(gate) if gate.get("status", {}).get("candidate") else ()
    decided = _override_nodes(gate, objects)
    return _node(gate, diagnose(gate), info, (*decided, *_alarm_nodes(gate, "Routing"), *evidence))


def _alarm_nodes(body: Body, kind: str) -> tuple[Node, ...]:
    """Return what the detectors that a spec asks for say, a line for each."""
    return tuple(
        Node(
            one["type"],
            kind,
            one["status"],
            one.get("lastTransitionTime", ""),
            one["message"],
            _ALARMS.get(one["status"], Health.PROGRESSING),
        )
        for one in body.get("status", {}).get("conditions", ())
        if one["type"] in _DETECTORS
    )


_DETECTORS = frozenset({"Drifting", "Collapsed", "Overflowing", "Failing", "NormShifted"})
_ALARMS = {"True": Health.DEGRADED, "False": Health.HEALTHY}


def _with_candidate(info: str, body: Body) -> str:
    """Say which version is on trial, if one is, and which share of new sessions sees it."""
    status = body.get("status", {})
    if not status.get("candidate"):
        return info
    return f"{info}; {status['candidate']} at {status.get('weight', '0%')}"


def expert_node(expert: Body, objects: Objects) -> Node:
    """Return an expert with its versions and their pods."""
    name, status = expert["metadata"]["name"], expert.get("status", {})
    versions = [
        _version_node(deployment, expert, objects)
        for deployment in objects.deployments
        if labels(deployment).get(EXPERT_LABEL) == name
    ]
    info = _with_candidate(f"ready {status.get('ready', '-')}", expert)
    decided = _override_nodes(expert, objects)
    alarms = _alarm_nodes(expert, "Health")
    below = (*decided, *_scaling_nodes(expert), *alarms, *versions)
    return _node(expert, diagnose(expert), info, below)


def _scaling_nodes(expert: Body) -> tuple[Node, ...]:
    """Return how many replicas the load of an expert asked for, since when and why."""
    said = expert.get("status", {}).get("autoscaling")
    if not said:
        return ()
    wanted, message = f"wants {said.get('replicas', '-')}", said.get("message", "")
    if full := said.get("full"):
        message = f"{message}; no more are asked for while some find no node: {full}"
    return (Node("autoscaling", "Scaling", wanted, said.get("since", ""), message),)


def _override_nodes(target: Body, objects: Objects) -> tuple[Node, ...]:
    """Return what people decided about an object; what is done with is left out."""
    return tuple(
        _override_node(body)
        for body in objects.overrides
        if targets(body, target) and body.get("status", {}).get("state") != "Done"
    )


def _override_node(override: Body) -> Node:
    spec, status = override["spec"], override.get("status", {})
    asked = f"epoch {spec['epoch']}" if "epoch" in spec else spec.get("version", "")
    by = f"by {spec['requestedBy']}" if spec.get("requestedBy") else ""
    said = " ".join(part for part in (spec["action"], asked, by) if part)
    state = status.get("state", "Pending")
    return Node(
        override["metadata"]["name"],
        "Override",
        state,
        override["metadata"].get("creationTimestamp", ""),
        "; ".join(part for part in (said, status.get("message", "")) if part),
        _OVERRIDE_HEALTH.get(state, Health.PROGRESSING),
    )


_OVERRIDE_HEALTH = {
    "Active": Health.HEALTHY,
    "Lapsed": Health.ROLLED_BACK,
    "Refused": Health.DEGRADED,
}


def _version_node(deployment: Body, expert: Body, objects: Objects) -> Node:
    digest = labels(deployment).get(DIGEST_LABEL, "")
    pods = [
        pod_node(pod)
        for pod in objects.pods
        if labels(pod).get(EXPERT_LABEL) == expert["metadata"]["name"]
        and labels(pod).get(DIGEST_LABEL) == digest
    ]
    role = role_of(digest, expert)
    evidence = evidence_nodes(expert) if role.startswith("candidate") else ()
    wanted = deployment["spec"].get("replicas", 0)
    ready = deployment.get("status", {}).get("readyReplicas", 0)
    return Node(
        labels(deployment).get(VERSION_LABEL, digest),
        "Version",
        role,
        deployment["metadata"].get("creationTimestamp", ""),
        f"sha256:{digest} ready {ready}/{wanted}",
        Health.HEALTHY if ready >= wanted else Health.PROGRESSING,
        (*evidence, *pods),
    )


def role_of(digest: str, expert: Body) -> str:
    """Return what the version of that short digest is to an expert."""
    status, rollout = expert.get("status", {}), expert.get("status", {}).get("rollout", {})
    if status.get("sha256", "-").startswith(digest):
        return "stable"
    if rollout.get("sha256", "-").startswith(digest) and status.get("candidate"):
        return f"candidate {status.get('weight', '0%')}"
    return "retiring"


def evidence_nodes(expert: Body) -> tuple[Node, ...]:
    """Return what is known for and against a candidate, a line for each verdict."""
    rollout = expert.get("status", {}).get("rollout", {})
    return tuple(
        Node(
            found["name"],
            found["tier"],
            found["state"],
            rollout.get("began", ""),
            found["message"],
            _STATES.get(found["state"], Health.PROGRESSING),
        )
        for found in rollout.get("evidence", ())
    )


_STATES = {"Pass": Health.HEALTHY, "Fail": Health.DEGRADED, "Waiting": Health.PROGRESSING}


def pod_node(pod: Body) -> Node:
    """Return a pod; what keeps it from running is its info."""
    status = pod.get("status", {})
    containers = status.get("containerStatuses", [])
    ready = condition(pod, "Ready").get("status") == "True"
    restarts = sum(c.get("restartCount", 0) for c in containers)
    waiting: Mapping[str, str] = next(
        (c["state"]["waiting"] for c in containers if "waiting" in c["state"]), {}
    )
    unscheduled = condition(pod, "PodScheduled")
    deleting = "deletionTimestamp" in pod["metadata"]
    if deleting:
        word = "Terminating"
    elif unscheduled.get("status") == "False":
        word = unscheduled.get("reason", "Pending")
    else:
        word = waiting.get("reason") or status.get("phase", "Pending")
    node = pod.get("spec", {}).get("nodeName", "")
    parts = [f"on {node}" if node else "", f"restarts {restarts}" if restarts else ""]
    problem = unscheduled.get("message", "") if unscheduled.get("status") == "False" else ""
    parts.append(problem or waiting.get("message", ""))
    return Node(
        pod["metadata"]["name"],
        "Pod",
        word if ready or word != "Running" else "NotReady",
        pod["metadata"].get("creationTimestamp", ""),
        "; ".join(part for part in parts if part),
        Health.HEALTHY if ready and not deleting else Health.PROGRESSING,
    )


def members(mixture: Body, objects: Objects) -> Iterable[Body]:
    """Give the mixture itself, its gates and its experts."""
    name = mixture["metadata"]["name"]
    yield mixture
    yield from (g for g in objects.gates if _belongs(g, name))
    yield from (e for e in objects.experts if _belongs(e, name))


def _belongs(body: Body, mixture: str) -> bool:
    return bool(body["spec"]["mixtureRef"]["name"] == mixture)


def _ready_health(text: str) -> Health:
    have, _, want = text.partition("/")
    return Health.HEALTHY if have == want else Health.DEGRADED


def _node(body: Body, diagnosis: Diagnosis, info: str, children: tuple[Node, ...]) -> Node:
    why = f"; {diagnosis.why}" if diagnosis.why else ""
    return Node(
        body["metadata"]["name"],
        body["kind"],
        diagnosis.health.value,
        body["metadata"].get("creationTimestamp", ""),
        f"{info}{why}",
        diagnosis.health,
        children,
    )
