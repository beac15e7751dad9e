"""Puts together what is known of one mixture: from the cache's objects and the last reports.

Reads and judges nothing; an object that cannot be read is told as such, with the sentence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from functools import partial
from typing import Any, Final, TypeVar

from moe_core.document import InvalidDocument
from moe_operator import journal, labels
from moe_operator.cache import Cache, Key, uid
from moe_operator.kept import Kept
from moe_operator.kinds import (
    BUDGET,
    CONTROLLER_REVISION,
    DEPLOYMENT,
    EXPERT,
    GATE,
    GROUP,
    MIXTURE,
    NETWORK_POLICY,
    NODE,
    OVERRIDE,
    POD,
    ROLE,
    ROLE_BINDING,
    ROUTING_TABLE,
    SERVICE,
    SERVICE_ACCOUNT,
    Body,
    Kind,
    annotations_of,
    labels_of,
    metadata,
    spec_of,
    status_of,
)
from moe_operator.override_spec import OverrideSpec
from moe_operator.readings import Readings
from moe_operator.reason import moment
from moe_operator.router_report import RouterReport
from moe_operator.spec import ExpertSpec, GateSpec, Meta, MixtureSpec
from moe_operator.tls import asked_securely
from moe_operator.world import (
    Answer,
    DeploymentSeen,
    Invalid,
    NodeSeen,
    PodSeen,
    PolicySeen,
    Question,
    WorkerReport,
    World,
)

APPLIED_HASH: Final = f"{GROUP}/applied-hash"
STAMPED_EPOCH: Final = f"{GROUP}/epoch"
_CHILDREN: Final = (
    *(DEPLOYMENT, SERVICE, SERVICE_ACCOUNT, ROLE, ROLE_BINDING),
    *(BUDGET, NETWORK_POLICY),
)
# Waiting reasons of a container that pass by themselves.
_STARTING: Final = frozenset({"ContainerCreating", "PodInitializing"})
_CORDONED: Final = "node.kubernetes.io/unschedulable"
_KEEPS_AWAY: Final = frozenset({"NoSchedule", "NoExecute"})

T = TypeVar("T")


def observe(
    cache: Cache,
    key: Key,
    routers: Iterable[RouterReport],
    workers: Iterable[WorkerReport],
    answers: Mapping[Question, Answer] | None = None,
    readings: Readings | None = None,
) -> World | None:
    """Return what is known of a mixture; None where nothing is. Raises BrokenTable.

    `readings` are those of its last look: what has not changed since is not read again.
    """
    if key not in cache:
        return None
    known, invalid = readings or Readings(), list[Invalid]()
    known.begin()

    def read(kind_name: str, bodies: Iterable[Body], parse: Callable[[Body], T]) -> tuple[T, ...]:
        return tuple(_readable(kind_name, bodies, partial(known.of, parse), invalid))

    def see(kind: Kind, parse: Callable[[Body], T]) -> tuple[T, ...]:
        return tuple(known.of(parse, body) for body in cache.of(key, kind))

    mixture = cache.get(MIXTURE, key.namespace, key.mixture)
    mixtures = read("Mixture", [mixture] if mixture else [], MixtureSpec.from_body)
    table = cache.get(ROUTING_TABLE, key.namespace, key.mixture)
    kept = Kept.of(cache.of(key, CONTROLLER_REVISION), known)
    return World(
        namespace=key.namespace,
        name=key.mixture,
        mixture=mixtures[0] if mixtures else None,
        table=None if table is None else known.of(journal.stored_table, table, kept.part),
        experts=read("Expert", cache.of(key, EXPERT), ExpertSpec.from_body),
        gates=read("Gate", cache.of(key, GATE), GateSpec.from_body),
        overrides=read("Override", cache.of(key, OVERRIDE), OverrideSpec.from_body),
        revisions=kept.revisions,
        deployments=see(DEPLOYMENT, deployment_seen),
        pods=see(POD, pod_seen),
        routers=tuple(sorted(routers, key=lambda report: report.pod)),
        workers=tuple(sorted(workers, key=lambda report: (report.pod, report.sha256))),
        invalid=tuple(invalid),
        snapshots=kept.snapshots,
        parts=kept.parts,
        policies=tuple(
            known.of(policy_seen, body)
            for body in cache.of(key, NETWORK_POLICY)
            if APPLIED_HASH in annotations_of(body)  # a person's own is left alone
        ),
        nodes=tuple(known.of(node_seen, body) for body in cache.of_cluster(NODE)),
        applied={
            (kind.name, str(metadata(body)["name"])): annotations_of(body).get(APPLIED_HASH, "")
            for kind in _CHILDREN
            for body in cache.of(key, kind)
        },
        answers=answers or {},
    )


def _readable(
    kind_name: str,
    bodies: Iterable[Body],
    parse: Callable[[Body], T],
    invalid: list[Invalid],
) -> Iterable[T]:
    for body in bodies:
        try:
            yield parse(body)
        except InvalidDocument as error:
            invalid.append(Invalid(kind_name, Meta.from_body(body), str(error)))


def deployment_seen(body: Body) -> DeploymentSeen:
    own, status = labels_of(body), status_of(body)
    failure = _condition(status, "ReplicaFailure")
    stamped = annotations_of(body).get(STAMPED_EPOCH, "")
    surge = annotations_of(body).get(labels.SURGE, "")
    more = int(surge) if surge.isdigit() else 0
    return DeploymentSeen(
        name=str(metadata(body)["name"]),
        uid=uid(body),
        resource_version=str(metadata(body)["resourceVersion"]),
        component=own.get(labels.COMPONENT, ""),
        expert=own.get(labels.EXPERT, ""),
        digest=own.get(labels.DIGEST, ""),
        replicas=max(0, int(spec_of(body).get("replicas", 1)) - more),
        ready_replicas=int(status.get("readyReplicas") or 0),
        unavailable_reason=str(failure.get("message", "")) if _holds(failure) else "",
        stamped_epoch=int(stamped) if stamped.isdigit() else 0,
        surge=more,
    )


def policy_seen(body: Body) -> PolicySeen:
    meta = metadata(body)
    return PolicySeen(str(meta["name"]), uid(body), str(meta["resourceVersion"]))


def pod_seen(body: Body) -> PodSeen:
    own, status = labels_of(body), status_of(body)
    scheduled = _condition(status, "PodScheduled")
    since = scheduled.get("lastTransitionTime") if _holds(scheduled) else None
    return PodSeen(
        name=str(metadata(body)["name"]),
        uid=uid(body),
        component=own.get(labels.COMPONENT, ""),
        expert=own.get(labels.EXPERT, ""),
        digest=own.get(labels.DIGEST, ""),
        node=str(spec_of(body).get("nodeName", "")),
        address=str(status.get("podIP", "")),
        ready=_holds(_condition(status, "Ready")),
        deleting="deletionTimestamp" in metadata(body),
        problem=_problem(status),
        resource_version=str(metadata(body)["resourceVersion"]),
        created=moment(metadata(body)["creationTimestamp"]),
        over=status.get("phase") in ("Succeeded", "Failed"),
        node_selector=spec_of(body).get("nodeSelector") or {},
        placed=moment(since) if since else None,
        ended=_ended(status),
        succeeded=status.get("phase") == "Succeeded",
        message=str(_terminated(status).get("message", "")),
        gate=own.get(labels.GATE, ""),
        secure=_secure(spec_of(body)),
    )


def _secure(spec: Any) -> bool:
    """Return whether a pod is asked by TLS, which the names of its ports say."""
    containers = spec.get("containers") or ()
    ports = {port.get("name") for each in containers for port in each.get("ports") or ()}
    return asked_securely(ports)


def _terminated(status: Any) -> Any:
    """Return how the pod's container ended; empty where it runs, or never did."""
    containers = status.get("containerStatuses") or ()
    ends = [(c.get("state") or {}).get("terminated") for c in containers]
    return next((end for end in ends if end), {})


def _ended(status: Any) -> datetime | None:
    """Return when a pod ended; one that never ran, when its condition last changed."""
    if status.get("phase") not in ("Succeeded", "Failed"):
        return None
    ready = _condition(status, "Ready").get("lastTransitionTime")
    said = _terminated(status).get("finishedAt") or ready
    return moment(said) if said else None


def node_seen(body: Body) -> NodeSeen:
    spec, ready = spec_of(body), _condition(status_of(body), "Ready")
    since = ready.get("lastTransitionTime")
    taints = spec.get("taints") or ()
    stamps = (taint.get("timeAdded") for taint in taints if taint.get("key") == _CORDONED)
    cordoned_since = next((stamp for stamp in stamps if stamp), None)
    return NodeSeen(
        name=str(metadata(body)["name"]),
        ready=_holds(ready),
        ready_since=moment(since) if since else None,
        schedulable=not spec.get("unschedulable")
        and not any(taint.get("effect") in _KEEPS_AWAY for taint in taints),
        labels=labels_of(body),
        cordoned=bool(spec.get("unschedulable")),
        cordoned_since=moment(cordoned_since) if cordoned_since else None,
    )


def _problem(status: Any) -> str:
    """Return why a pod does not run, as the scheduler or the kubelet said it; empty if it does."""
    scheduled = _condition(status, "PodScheduled")
    if scheduled.get("status") == "False":
        return f"{scheduled.get('reason', 'Unschedulable')}: {scheduled.get('message', '')}"
    if status.get("phase") in ("Failed", "Unknown") and status.get("reason"):
        return f"{status['reason']}: {status.get('message', '')}"
    for container in status.get("containerStatuses") or ():
        waiting = (container.get("state") or {}).get("waiting") or {}
        reason = waiting.get("reason", "")
        if reason and reason not in _STARTING:
            last = ((container.get("lastState") or {}).get("terminated") or {}).get("message", "")
            return f"{reason}: {waiting.get('message') or last}".rstrip(": ")
    return ""


def _condition(status: Any, name: str) -> Any:
    conditions = status.get("conditions") or ()
    return next((c for c in conditions if c.get("type") == name), {})


def _holds(condition: Any) -> bool:
    return bool(condition.get("status") == "True")
