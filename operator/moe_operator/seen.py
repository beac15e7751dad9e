"""What is observed of each expert alone: the world, sorted once by the names of Expert objects.

Decides nothing; without it every expert would look at every pod.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from moe_operator import labels
from moe_operator.override_spec import OverrideSpec, TargetKind
from moe_operator.router_report import Loading
from moe_operator.spec import Tried
from moe_operator.world import DeploymentSeen, PodSeen, Revision, World

_REFUSED = "Refused"


@dataclass(slots=True)
class Seen:
    """What belongs to one Expert object; pods that are being deleted are left out."""

    revisions: list[Revision] = field(default_factory=list)
    overrides: list[OverrideSpec] = field(default_factory=list)
    deployments: list[DeploymentSeen] = field(default_factory=list)
    pods: list[PodSeen] = field(default_factory=list)
    # What tries candidates on golden sets, those that are being deleted too.
    evaluators: list[PodSeen] = field(default_factory=list)
    # What workers will never serve, by sha256, with their sentence.
    refused: dict[str, str] = field(default_factory=dict)
    # Deployments that the API server did not take, by the digest's first digits.
    denied: dict[str, str] = field(default_factory=dict)

    @property
    def problems(self) -> dict[str, str]:
        """Why pods do not come up, by the digest's first digits; what pods say comes first."""
        said = [
            *self.denied.items(),
            *(
                (deployment.digest, deployment.unavailable_reason)
                for deployment in self.deployments
            ),
            *((pod.digest, pod.problem) for pod in reversed(self.pods)),
        ]
        return {digest: problem for digest, problem in said if problem}

    @property
    def replicas(self) -> dict[str, int]:
        """The pods asked for, by the digest's first digits."""
        return {deployment.digest: deployment.replicas for deployment in self.deployments}

    @property
    def placed(self) -> dict[str, datetime]:
        """When the last pod of a version found a node, by the digest's first digits."""
        times: defaultdict[str, list[datetime]] = defaultdict(list)
        for pod in self.pods:
            if pod.placed is not None:
                times[pod.digest].append(pod.placed)
        return {digest: max(at) for digest, at in times.items()}

    def count(self, digest: str) -> tuple[int, int]:
        """Return the pods of a version: there, and ready of those."""
        found = [pod.ready for pod in self.pods if pod.digest == digest]
        return len(found), sum(found)


def by_expert(world: World) -> Mapping[str, Seen]:
    """Return what is observed by the name of the Expert object; nothing for unknown names."""
    seen: defaultdict[str, Seen] = defaultdict(Seen)
    for revision in world.revisions:
        if revision.kind is Tried.EXPERT:
            seen[revision.expert].revisions.append(revision)
    for override in world.overrides:
        if override.kind is TargetKind.EXPERT:
            seen[override.target].overrides.append(override)
    for deployment in world.deployments:
        if deployment.component == labels.WORKER:
            seen[deployment.expert].deployments.append(deployment)
    owners: dict[str, str] = {}
    for pod in world.pods:
        if pod.component == labels.WORKER and not pod.deleting:
            seen[pod.expert].pods.append(pod)
            owners[pod.name] = pod.expert
        elif pod.component == labels.EVALUATOR and pod.expert:
            seen[pod.expert].evaluators.append(pod)
    for (kind, name), sentence in world.refused.items():
        expert, _, digest = name.rpartition("-")
        if kind == "Deployment":
            seen[expert].denied[digest] = sentence
    for report in world.workers:
        if report.phase == _REFUSED and report.pod in owners:
            seen[owners[report.pod]].refused[report.sha256] = report.message
    return seen


def by_gate(world: World) -> Mapping[str, Seen]:
    """Return what is observed by the name of the Gate object; nothing for unknown names."""
    seen: defaultdict[str, Seen] = defaultdict(Seen)
    for revision in world.revisions:
        if revision.kind is Tried.GATE:
            seen[revision.expert].revisions.append(revision)
    for override in world.overrides:
        if override.kind is TargetKind.GATE:
            seen[override.target].overrides.append(override)
    for pod in world.pods:
        if pod.gate:
            seen[pod.gate].evaluators.append(pod)
    refused = {
        sha256: loading.message
        for report in world.routers
        for sha256, loading in report.gates.items()
        if loading.state is Loading.REFUSED
    }
    for gate in world.gates:
        seen[gate.meta.name].refused.update(refused)
    return seen
