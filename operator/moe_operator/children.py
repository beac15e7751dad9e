"""The Deployments of one expert's versions: how many pods each is to have, and which may go.

A version that the table names, or named until a moment ago, keeps its pods; they go only when no
table names them and every router has said so.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from moe_core.rollout import Outcome, Version
from moe_core.rows import ExpertRow
from moe_operator import labels
from moe_operator.case import Case, Decision
from moe_operator.drain import Drain
from moe_operator.ending import cold_at, keeps_size
from moe_operator.idle import asleep
from moe_operator.intent import Delete, Manifest
from moe_operator.readings import Readings
from moe_operator.render import worker_deployment
from moe_operator.spec import MixtureSpec
from moe_operator.template import Settings, worker_template
from moe_operator.turn import Turn
from moe_operator.world import DeploymentSeen, World


@dataclass(frozen=True, slots=True)
class Children:
    """What to apply, and the names of all Deployments that must not go."""

    manifests: tuple[Manifest, ...]
    kept: frozenset[str]


def expert_children(
    turn: Turn, mixture: MixtureSpec, settings: Settings, drain: Drain, known: Readings
) -> Children:
    """Return the Deployments of one expert, given its row as it is to be.

    `known` remembers those of the last look: most are as they were.
    """
    case, decision, lineage = turn.case, turn.decision, turn.lineage
    expert, wanted = case.expert, _replicas(case, decision)
    manifests = []
    for version, replicas in wanted.values():
        template = lineage.template(version.sha256)
        if template is None:
            template = worker_template(mixture, expert, version, settings)
        group = labels.WORKER, expert.meta.name, labels.short(version.sha256)
        size = version, replicas, drain.surge(group, replicas)
        manifests.append(known.made(worker_deployment, (expert, template), size))
    kept = {*wanted, *_warm(case, decision.row)}
    names = {labels.deployment_name(expert.meta.name, sha256) for sha256 in kept}
    return Children(tuple(manifests), frozenset(names))


def _replicas(case: Case, decision: Decision) -> dict[str, tuple[Version, int]]:
    """Return the pods that each version is to have, by sha256.

    Stable follows the spec, and what it replaced stays as large for the sessions that use it. In a
    rollout and for a while after it they only grow.
    """
    row, replicas = decision.row, case.expert.replicas
    if asleep(row, case):
        return {v.sha256: (v, 0) for v in (row.previous, row.stable) if v is not None}
    there = case.replicas if keeps_size(row, case) else {}
    wanted = {
        version.sha256: (version, max(replicas, there.get(labels.short(version.sha256), 0)))
        for version in (row.previous, row.stable)
        if version is not None
    }
    if case.wanted.sha256 not in wanted and (decision.room or row.stable is None):
        wanted[case.wanted.sha256] = (case.wanted, decision.room)
    return wanted


def _warm(case: Case, row: ExpertRow) -> tuple[str, ...]:
    """Return the digests of what lost, for as long as it is kept: what was taken back after it
    served, and what changed at once with a gate."""
    rollout = row.rollout
    if rollout is None or not rollout.weights or cold_at(row, case) is None:
        return ()
    if rollout.outcome is not Outcome.PROMOTED:
        return (rollout.target.sha256,)
    percents = [since.percent for since in rollout.weights]
    return tuple(case.replicas) if percents == [0, 100] and row.previous is None else ()


def unapplied(world: World, manifests: Iterable[Manifest]) -> tuple[Manifest, ...]:
    """Return the manifests that are not yet what the API server has."""
    scaled = {d.name: d.replicas + d.surge for d in world.deployments}

    def differs(manifest: Manifest) -> bool:
        kind, name = manifest.body["kind"], manifest.body["metadata"]["name"]
        if world.applied.get((kind, name)) != manifest.hash:
            return True
        if kind != "Deployment":
            return False
        return name in scaled and scaled[name] != manifest.body["spec"]["replicas"]

    return tuple(manifest for manifest in manifests if differs(manifest))


def leaving(
    world: World, kept: Iterable[str], rows: Iterable[ExpertRow], released: bool
) -> tuple[Delete, ...]:
    """Return the workers' Deployments that may go.

    `rows` are those of the stored table and of the new one; `released` says that every router has
    reported the stored one. What a later epoch was stamped on is named by a table that is not seen
    yet: watches of two kinds need not be equally far.
    """
    if not released:
        return ()
    epoch = world.table.table.epoch if world.table is not None else 0
    staying = set(kept) | {
        labels.deployment_name(row.name, version.sha256) for row in rows for version in row.named
    }
    return tuple(
        delete(deployment)
        for deployment in world.deployments
        if deployment.component == labels.WORKER
        and deployment.name not in staying
        and deployment.stamped_epoch <= epoch
    )


def delete(deployment: DeploymentSeen) -> Delete:
    return Delete("Deployment", deployment.name, deployment.uid, deployment.resource_version)
