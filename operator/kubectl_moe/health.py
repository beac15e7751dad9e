"""Decides how an object is, from its conditions and status alone: a pure function of bodies.

The same answer gives the icon in a tree, the end of `--wait` and the exit code.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Any


class Health(StrEnum):
    """From the best to what asks most for attention."""

    HEALTHY = "Healthy"
    PROGRESSING = "Progressing"
    PAUSED = "Paused"
    ROLLED_BACK = "RolledBack"
    DEGRADED = "Degraded"


class Exit(IntEnum):
    """Exit codes of the plugin."""

    HEALTHY = 0
    ERROR = 1
    DEGRADED = 2
    TIMEOUT = 3
    PAUSED = 4
    DIFFERENT = 5


EXITS: Mapping[Health, Exit] = {
    Health.HEALTHY: Exit.HEALTHY,
    Health.PROGRESSING: Exit.HEALTHY,
    Health.PAUSED: Exit.PAUSED,
    Health.ROLLED_BACK: Exit.DEGRADED,
    Health.DEGRADED: Exit.DEGRADED,
}

_RANK = {health: rank for rank, health in enumerate(Health)}


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """How an object is, and the sentence that says why."""

    health: Health
    why: str = ""


def condition(body: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    """Return the condition of that type, empty where there is none."""
    conditions = body.get("status", {}).get("conditions", [])
    return next((c for c in conditions if c["type"] == kind), {})


def diagnose(body: Mapping[str, Any]) -> Diagnosis:
    """Return how a Mixture, Expert or Gate is."""
    status = body.get("status", {})
    if status.get("observedGeneration", 0) < body["metadata"].get("generation", 0):
        return Diagnosis(Health.PROGRESSING, "the operator has not seen this spec yet")
    progressing, ready = condition(body, "Progressing"), condition(body, "Ready")
    degraded = condition(body, "Degraded")
    rollout = status.get("rollout", {})
    match rollout.get("outcome"):
        case "Paused":
            return Diagnosis(Health.PAUSED, rollout.get("message", ""))
        case "Progressing":
            return Diagnosis(Health.PROGRESSING, rollout.get("message", ""))
        case "RolledBack" | "Aborted" if progressing.get("reason") != "Complete":
            return Diagnosis(Health.ROLLED_BACK, rollout.get("message", ""))
    if ready.get("status") != "True":
        waiting = progressing.get("status") == "True" or not ready
        health = Health.PROGRESSING if waiting else Health.DEGRADED
        return Diagnosis(health, ready.get("message") or "not ready yet")
    if degraded.get("status") == "True":
        coming = degraded.get("reason") == "PodsNotReady"
        health = Health.PROGRESSING if coming else Health.DEGRADED
        return Diagnosis(health, degraded.get("message", ""))
    if progressing.get("status") == "True" and progressing.get("reason") != "Complete":
        return Diagnosis(Health.PROGRESSING, progressing.get("message", ""))
    return Diagnosis(Health.HEALTHY)


def worst(diagnoses: Iterable[Diagnosis]) -> Diagnosis:
    """Return the one that asks most for attention; Healthy where there is none."""
    return max(diagnoses, key=lambda d: _RANK[d.health], default=Diagnosis(Health.HEALTHY))


def settled(diagnosis: Diagnosis) -> bool:
    """True where waiting longer would change nothing by itself."""
    return diagnosis.health is not Health.PROGRESSING
