"""Which command a person may want next, after each verb: pure, and never more than three."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from kubectl_moe.health import Diagnosis, Health, diagnose, worst
from kubectl_moe.names import told

Body = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Step:
    """A command, and why one would run it."""

    command: str
    why: str


def moe(words: str, why: str) -> Step:
    return Step(f"kubectl moe {words}", why)


def after_status(target: Body, diagnosis: Diagnosis, parts: Sequence[Body]) -> Iterator[Step]:
    """Say what may be done about an object, as it is; of a mixture about its worst part."""
    if target["kind"] == "Mixture":
        ill = [part for part in parts if diagnose(part) == diagnosis and part is not target]
        if diagnosis.health is not Health.HEALTHY and ill and ill[0]["kind"] != "Mixture":
            yield moe(f"status {_named(ill[0])}", f"why it is {diagnosis.health}")
        else:
            yield moe(f"top {target['metadata']['name']}", "the load of its experts")
        return
    name, on_trial = told(target), bool(target.get("status", {}).get("candidate"))
    match diagnosis.health:
        case Health.PAUSED:
            yield moe(f"resume {name}", "go on")
            if on_trial:
                yield moe(f"promote {name}", "make the candidate stable now")
                yield moe(f"abort {name}", "take the candidate back")
        case Health.PROGRESSING:
            yield moe(f"status {_named(target)} --wait", "until it has settled")
            if on_trial:
                yield moe(f"abort {name}", "take the candidate back")
        case Health.ROLLED_BACK:
            yield moe(f"history {name}", "what was taken back, and why")
            yield moe(f"retry {name}", "try it again")
        case Health.DEGRADED:
            kind = target["kind"].lower()
            command = f"kubectl describe {kind} {target['metadata']['name']}"
            yield Step(command, "its conditions and events")
        case Health.HEALTHY:
            yield moe(f"history {name}", "what was before")


def after_get(found: Sequence[Body]) -> Iterator[Step]:
    """Point at what asks most for attention, else at a mixture."""
    told_of = [body for body in found if body["kind"] != "Override"]
    if not told_of:
        yield moe("get --all-namespaces", "what there is elsewhere")
        return
    ill = worst(diagnose(body) for body in told_of)
    first = next(body for body in told_of if diagnose(body) == ill)
    why = "down to its pods" if ill.health is Health.HEALTHY else f"why it is {ill.health}"
    yield moe(f"status {_named(first)}", why)


def after_decision(verb: str, target: Body) -> Iterator[Step]:
    """Say how to see the outcome, and how to take the decision back."""
    yield moe(f"status {_named(target)} --wait", "until it has settled")
    if verb in ("rollback", "pause"):
        yield moe(f"resume {told(target)}", "follow the spec again")
    if verb == "abort":
        yield moe(f"retry {told(target)}", "try it again")


def after_set(target: Body) -> Iterator[Step]:
    """Say how to follow the rollout that was begun, and how to end it."""
    yield moe(f"status {_named(target)} --wait", "until it is promoted or taken back")
    yield moe(f"abort {told(target)}", "take it back at once")


def after_history(target: Body, versions: int) -> Iterator[Step]:
    """Say how to compare and how to go back, where there is anything before."""
    if versions > 1:
        yield moe(f"diff {told(target)}", "what the newest changed")
        if target["kind"] == "Mixture":
            yield moe(f"rollback {told(target)} --to EPOCH", "serve all of an epoch again")
        else:
            yield moe(f"rollback {told(target)} --to REVISION", "serve it again")
    else:
        yield moe(f"status {_named(target)}", "what is served")


def _named(body: Body) -> str:
    """Return how `status` takes an object: a bare name is a mixture's there, before an expert's."""
    if body["kind"] == "Mixture":
        name: str = body["metadata"]["name"]
        return name
    return f"{_SHORT[body['kind']]}/{body['metadata']['name']}"


_SHORT: Final = {"Expert": "ex", "Gate": "gate"}
