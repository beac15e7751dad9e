"""The status of Experts and Gates, derived from the table and from what is observed.

Nothing here decides anything: losing all status changes nothing that is served.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from moe_core.rollout import Outcome, Rollout
from moe_core.rows import ExpertRow
from moe_operator import labels
from moe_operator.case import Case
from moe_operator.conditions import Condition, conditions
from moe_operator.ending import keeps_size
from moe_operator.idle import asleep, why_idle
from moe_operator.judgement import Finding
from moe_operator.labels import short
from moe_operator.reason import Reason, Why
from moe_operator.seen import Seen
from moe_operator.shares import answered_requests, rows_seen
from moe_operator.spec import Meta
from moe_operator.window import Window


def expert_status(case: Case, row: ExpertRow, why: Why, seen: Seen, in_use: bool) -> dict[str, Any]:
    """Return the status of an Expert that counts, given its row as it is to be."""
    expert = case.expert
    digest = short(row.stable.sha256) if row.stable else ""
    there, ready = seen.count(digest)
    serves, lacks = _ready(case, row, why), _degraded(case, row, ready)
    status: dict[str, Any] = {
        "observedGeneration": expert.meta.generation,
        "phase": _phase(row, why, serves, lacks),
        "weight": f"{row.rollout.weight}%" if row.rollout and row.candidate else "",
        "candidate": row.candidate.version if row.candidate else "",
        "ready": f"{ready}/{expert.replicas}",
        "replicas": there,
        "readyReplicas": ready,
        "inUse": in_use,
        "conditions": conditions(
            expert.meta,
            case.now,
            (serves, Condition("Progressing", not why.reason.stuck, why), lacks),
        ),
    }
    if row.stable is not None:
        status |= {"version": row.stable.version, "sha256": row.stable.sha256}
        selected = labels.of_version(expert, row.stable.sha256)
        status["selector"] = ",".join(f"{key}={value}" for key, value in selected.items())
    if row.rollout is not None:
        status["rollout"] = _rollout(case, row.rollout, why)
    return {key: value for key, value in status.items() if value != ""}


def _rollout(case: Case, rollout: Rollout, why: Why) -> dict[str, Any]:
    status: dict[str, Any] = {
        "revision": rollout.revision,
        "version": rollout.target.version,
        "sha256": rollout.target.sha256,
        "step": rollout.step,
        "steps": len(case.expert.rollout.steps),
        "outcome": Outcome.PAUSED.value if _held(rollout, why) else rollout.outcome.value,
        "message": why.message[:1024],
        "began": rollout.step_began,
    }
    if case.judgement.findings:
        status["evidence"] = [_told(finding) for finding in case.judgement.findings]
    if not rollout.outcome.ended:
        window = case.windows.get(rollout.target.sha256, Window())
        status |= {
            "requests": answered_requests(window),
            "rows": rows_seen(window),
            "requiredRequests": case.expert.rollout.min_requests,
        }
    return status


def _held(rollout: Rollout, why: Why) -> bool:
    """Return whether a rollout is held: by a person, for want of evidence, or by an alarm."""
    held = why.reason in (Reason.EVIDENCE_MISSING, Reason.DRIFTING, Reason.UNHEALTHY)
    return rollout.outcome is Outcome.PAUSED or held


def _told(finding: Finding) -> dict[str, str]:
    message = finding.verdict.reason[:1024]
    return {
        "tier": finding.tier.value,
        "name": finding.name,
        "state": finding.state,
        "message": message,
    }


def _ready(case: Case, row: ExpertRow, why: Why) -> Condition:
    """Ready: there is a version that routers reach. Unknown links are no reason to deny it."""
    if row.stable is None:
        return Condition("Ready", False, why)
    version = row.stable.version
    if (idle := why_idle(row, case)) is not None:
        return Condition("Ready", False, idle)
    if case.expert.replicas == 0 and case.expert.autoscaling is not None:
        return Condition(
            "Ready", True, Why(Reason.ASLEEP, f"{version} has no pods until rows come")
        )
    if case.expert.replicas == 0:
        message = f"spec.replicas is 0: {version} has no pods"
        return Condition("Ready", False, Why(Reason.SCALED_TO_ZERO, message))
    if case.reach.lost(row.stable.sha256):
        problem = case.problems.get(short(row.stable.sha256), "")
        message = f"no router reaches a pod of {version}" + (f": {problem}" if problem else "")
        return Condition("Ready", False, Why(Reason.NOT_ROUTABLE, message))
    return Condition("Ready", True, Why(Reason.SERVING, f"{version} is served"))


def _degraded(case: Case, row: ExpertRow, ready: int) -> Condition:
    """Degraded: it serves with less than what was asked for."""
    expert = case.expert
    if asleep(row, case):
        return Condition("Degraded", False, Why(Reason.AS_WANTED, "nothing is missing"))
    if row.stable is not None and ready < expert.replicas:
        problem = case.problems.get(short(row.stable.sha256), "")
        message = f"{ready} of {expert.replicas} pods of {row.stable.version} are ready"
        why = Why(Reason.PODS_MISSING, f"{message}: {problem}")
        return Condition("Degraded", True, why if problem else Why(Reason.PODS_NOT_READY, message))
    if expert.backup and row.backup is None:
        message = f"no Expert has the id {expert.backup} of spec.backupExpertId"
        return Condition("Degraded", True, Why(Reason.BACKUP_MISSING, message))
    if row.layers != expert.layers:
        message = "spec.layers takes effect with the next version"
        return Condition("Degraded", True, Why(Reason.LAYERS_PENDING, message))
    return Condition("Degraded", False, Why(Reason.AS_WANTED, _more_than_wanted(case, row)))


def _more_than_wanted(case: Case, row: ExpertRow) -> str:
    """Say that fewer replicas are wanted than are kept, if so."""
    wanted = case.expert.replicas
    there = case.replicas.get(short(row.stable.sha256), 0) if row.stable else 0
    if there <= wanted or not keeps_size(row, case):
        return "nothing is missing"
    return f"nothing is missing; {there} pods become {wanted} when the rollout is over and cold"


def _phase(row: ExpertRow, why: Why, serves: Condition, lacks: Condition) -> str:
    if serves.why.reason is Reason.NOT_LISTED:
        return "Removable"
    if not serves.holds:
        return "NotReady" if row.stable else "Pending"
    if row.rollout is not None and not row.rollout.outcome.ended:
        return "Paused" if _held(row.rollout, why) else "Canary"
    if why.reason.stuck:
        return why.reason.value
    if serves.why.reason is Reason.ASLEEP:
        return serves.why.reason.value
    return "Degraded" if lacks.holds else "Serving"


def refused_status(meta: Meta, why: Why, now: datetime, in_use: bool | None) -> dict[str, Any]:
    """Return the status of an object that does not count; what it served is kept in view.

    `in_use` is None for kinds that are never locked.
    """
    kept = {key: meta.status[key] for key in ("version", "sha256", "history") if key in meta.status}
    return {
        "observedGeneration": meta.generation,
        "phase": why.reason.value,
        **kept,
        **({} if in_use is None else {"inUse": in_use}),
        "conditions": conditions(meta, now, (Condition("Ready", False, why),)),
    }


def gate_status(case: Case, row: ExpertRow, why: Why, in_use: bool) -> dict[str, Any]:
    """Return the status of a Gate, given its row, in the terms of an expert, as it is to be."""
    serving = why
    if row.stable is not None:
        serving = Why(Reason.SERVING, f"{row.stable.version} is served")
    ready = Condition("Ready", row.stable is not None, serving)
    meta = case.expert.meta
    status: dict[str, Any] = {
        "observedGeneration": meta.generation,
        "phase": _gate_phase(row, why),
        "weight": f"{row.rollout.weight}%" if row.rollout and row.candidate else "",
        "candidate": row.candidate.version if row.candidate else "",
        "inUse": in_use,
        "conditions": conditions(
            meta, case.now, (ready, Condition("Progressing", not why.reason.stuck, why))
        ),
    }
    if row.stable is not None:
        status |= {"version": row.stable.version, "sha256": row.stable.sha256}
    if row.rollout is not None:
        status["rollout"] = _rollout(case, row.rollout, why)
    return {key: value for key, value in status.items() if value != ""}


def _gate_phase(row: ExpertRow, why: Why) -> str:
    if row.stable is None:
        return "Pending"
    if row.rollout is not None and not row.rollout.outcome.ended:
        if _held(row.rollout, why):
            return "Paused"
        return "Canary" if row.rollout.weights else "Shadow"
    if why.reason.stuck:
        return why.reason.value
    return "Serving" if why.reason is Reason.COMPLETE else "Waiting"
