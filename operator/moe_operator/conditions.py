"""Conditions in Kubernetes' form; the time of a transition is kept while the status stays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from moe_operator.reason import Reason, Why
from moe_operator.spec import Meta

_MESSAGE_LIMIT = 1024


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition as it is to be; `holds` is None where that is unknown.

    The sentence of one that is `lasting` has numbers of a moment: it stays as it was written for
    as long as status and reason do.
    """

    type: str
    holds: bool | None
    why: Why
    lasting: bool = False


def conditions(meta: Meta, now: datetime, wanted: Iterable[Condition]) -> list[dict[str, Any]]:
    """Return the `conditions` of an object's status."""
    before = {c.get("type"): c for c in meta.status.get("conditions", ())}
    return [_written(c, before.get(c.type, {}), meta.generation, now) for c in wanted]


def said_before(meta: Meta, kinds: Iterable[str]) -> dict[str, Condition]:
    """Return the verdicts of these types that an object's status tells, if about this spec."""
    wanted, found = set(kinds), {}
    for one in meta.status.get("conditions", ()):
        current = one.get("observedGeneration") == meta.generation
        if one["type"] in wanted and one["status"] != "Unknown" and current:
            why = Why(Reason(one["reason"]), one["message"])
            found[one["type"]] = Condition(one["type"], one["status"] == "True", why)
    return found


def _written(
    condition: Condition, before: Mapping[str, Any], generation: int, now: datetime
) -> dict[str, Any]:
    status = "Unknown" if condition.holds is None else str(condition.holds)
    reason, message = condition.why.reason.value, condition.why.message[:_MESSAGE_LIMIT]
    since = before.get("lastTransitionTime") if before.get("status") == status else None
    if condition.lasting and since is not None and before.get("reason") == reason:
        message = before["message"]
    return {
        "type": condition.type,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": since or now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "observedGeneration": generation,
    }
