"""What people are told of a pass as Events: steps of rollouts, and what came to be well or ill.

Derived from what changes between the status that an object carried and the one that it gets, so
that nothing is told twice and nothing of what stayed as it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from moe_operator.intent import Note, Status
from moe_operator.reason import Reason
from moe_operator.report import Turn

# Conditions whose change is worth an Event, and the status that is well.
_WELL: Final = {"Ready": "True", "Degraded": "False"}


def steps(turns: Iterable[Turn]) -> Iterator[Note]:
    """Tell of the steps that rollouts took."""
    for turn in turns:
        why = turn.decision.told
        if why is not None:
            name = turn.case.expert.meta.name
            yield Note("Expert", name, why.reason.stuck, why.reason.value, why.message)


def changes(turns: Iterable[Turn], statuses: Iterable[Status]) -> Iterator[Note]:
    """Tell of experts that began or ceased to serve, and of rollouts that got stuck."""
    before = {turn.case.expert.meta.name: turn.case.expert.meta.status for turn in turns}
    told = {turn.case.expert.meta.name for turn in turns if turn.decision.told is not None}
    for status in statuses:
        if status.kind != "Expert" or status.name not in before or status.name in told:
            continue
        old = _conditions(before[status.name])
        for kind, condition in _conditions(status.status).items():
            if kind in old and _worth_telling(old[kind], condition):
                well = _WELL.get(kind, "True") == condition["status"]
                reason, message = condition["reason"], condition["message"]
                yield Note("Expert", status.name, not well, reason, message)


def _worth_telling(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    if new["type"] in _WELL:
        return bool(old["status"] != new["status"])
    return bool(old["reason"] != new["reason"] and Reason(new["reason"]).stuck)


def _conditions(status: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {condition["type"]: condition for condition in status.get("conditions", ())}
