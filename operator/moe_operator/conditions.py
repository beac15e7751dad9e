"""Conditions in Kubernetes' form; the time of a transition is kept while the status stays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from moe_operator.reason import Why
from moe_operator.spec import Meta

_MESSAGE_LIMIT = 1024


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition as it is to be."""

    type: str
    holds: bool
    why: Why


def conditions(meta: Meta, now: datetime, wanted: Iterable[Condition]) -> list[dict[str, Any]]:
    """Return the `conditions` of an object's status."""
    before = {c.get("type"): c for c in meta.status.get("conditions", ())}
    return [_written(c, before.get(c.type, {}), meta.generation, now) for c in wanted]


def _written(
    condition: Condition, before: Mapping[str, Any], generation: int, now: datetime
) -> dict[str, Any]:
    status = "True" if condition.holds else "False"
    since = before.get("lastTransitionTime") if before.get("status") == status else None
    return {
        "type": condition.type,
        "status": status,
        "reason": condition.why.reason.value,
        "message": condition.why.message[:_MESSAGE_LIMIT],
        "lastTransitionTime": since or now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "observedGeneration": generation,
    }
