"""What people are told of a pass as Events: steps of rollouts, and what came to be well or ill.

Derived from what changes between the status that an object carried and the one that it gets, so
that nothing is told twice and nothing of what stayed as it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from moe_operator.drift import Detector
from moe_operator.health import Ailment
from moe_operator.intent import Note, Status
from moe_operator.overrides import State
from moe_operator.reason import Reason
from moe_operator.restore import LAPSED_FOR
from moe_operator.turn import Turn
from moe_operator.world import World

# What is looked for in routing and in experts; that it is looked at, or no more, is no news.
_ALARMS: Final = {kind.value for kind in (*Detector, *Ailment)}
# Conditions whose change is worth an Event, and the status that is well.
_WELL: Final = {
    "Ready": "True",
    "Degraded": "False",
    **dict.fromkeys(_ALARMS, "False"),
}


def steps(turns: Iterable[Turn]) -> Iterator[Note]:
    """Tell of the steps that rollouts took."""
    for turn in turns:
        why = turn.decision.told
        if why is not None:
            expert = turn.case.expert
            yield Note(
                expert.kind.value, expert.meta.name, why.reason.stuck, why.reason.value, why.message
            )


def changes(turns: Iterable[Turn], statuses: Iterable[Status]) -> Iterator[Note]:
    """Tell of experts and gates that began or ceased to serve, and of rollouts that got stuck."""
    quiet = {
        (expert.kind.value, expert.meta.name): expert.meta.status
        for turn in turns
        if turn.decision.told is None
        for expert in (turn.case.expert,)
    }
    for status in statuses:
        place = status.kind, status.name
        if place not in quiet:
            continue
        old = _conditions(quiet[place])
        for kind, condition in _conditions(status.status).items():
            if kind in old and _worth_telling(old[kind], condition):
                well = _WELL.get(kind, "True") == condition["status"]
                reason, message = condition["reason"], condition["message"]
                yield Note(status.kind, status.name, not well, reason, message)


def lapses(world: World, statuses: Iterable[Status]) -> Iterator[Note]:
    """Tell of Overrides that count no more, or not for all that they list, and why."""
    metas = [*(o.meta for o in world.overrides), *(i.meta for i in world.invalid)]
    before = {meta.name: meta.status for meta in metas}
    for status in statuses:
        if status.kind == "Override":
            reason, message = _lapse(status.status)
            if message and (reason, message) != _lapse(before[status.name]):
                yield Note("Override", status.name, True, reason, message)


def _lapse(status: Mapping[str, Any]) -> tuple[str, str]:
    state, message = str(status.get("state", "")), str(status.get("message", ""))
    if state in (State.LAPSED, State.REFUSED):
        return state, message
    _, said, lapsed = message.partition(LAPSED_FOR)
    return State.LAPSED.value, f"{said}{lapsed}"


def _worth_telling(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    if new["type"] in _ALARMS:
        return bool((old["status"] == "True") != (new["status"] == "True"))
    if new["type"] in _WELL:
        return bool(old["status"] != new["status"])
    return bool(old["reason"] != new["reason"] and Reason(new["reason"]).stuck)


def _conditions(status: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {condition["type"]: condition for condition in status.get("conditions", ())}
