"""Turns what a person asks for into an Override, or says why there is nothing to do.

Pure: the Expert, its history and the Overrides there are go in, a body or a sentence comes out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kubectl_moe.names import API_VERSION

Body = Mapping[str, Any]


class Refused(ValueError):
    """It cannot be done; the message says why and what can."""


@dataclass(frozen=True, slots=True)
class Skip:
    """Nothing needs doing, and why."""

    why: str


@dataclass(frozen=True, slots=True)
class Past:
    """One version of an expert's history, newest last."""

    revision: int
    version: str
    sha256: str
    created: str


def history(revisions: Sequence[Body]) -> tuple[Past, ...]:
    """Return what ControllerRevisions say, in order of their number."""
    past = [
        Past(
            int(body["revision"]),
            body["data"]["version"]["version"],
            body["data"]["version"]["sha256"],
            body["metadata"].get("creationTimestamp", ""),
        )
        for body in revisions
    ]
    return tuple(sorted(past, key=lambda p: p.revision))


def rollback(
    expert: Body, past: Sequence[Past], overrides: Sequence[Body], to: str | None, reason: str
) -> dict[str, Any] | Skip:
    """Serve an earlier version instead of the one in the spec.

    Without `to`: the stable version while a candidate is on trial, else the newest other version
    that was accepted before the one that is served. Raises Refused where there is none.
    """
    wanted = expert["spec"]["version"]
    served = expert.get("status", {}).get("version")
    on_trial = expert.get("status", {}).get("candidate")
    version = to or (served if on_trial else _before(past, served))
    name = expert["metadata"]["name"]
    if version is None:
        raise Refused(f"expert {name!r} has no earlier version to go back to")
    if version not in {p.version for p in past}:
        known = ", ".join(p.version for p in past) or "none"
        raise Refused(f"expert {name!r} never had a version {version!r}; it had {known}")
    if served == version and not on_trial:
        return Skip(f"expert {name!r} already serves {version}")
    if version == wanted:
        raise Refused(
            f"expert {name!r}: {version} is what its spec asks for; "
            f"`kubectl moe resume {name}` removes the Overrides that keep it from being served"
        )
    spec = {"action": "Serve", "version": version, "insteadOf": wanted}
    return _override(expert, spec, overrides, reason)


def pause(expert: Body, overrides: Sequence[Body], reason: str) -> dict[str, Any] | Skip:
    """Hold the rollout where it is, for as long as the Override exists."""
    spec = {"action": "Pause", "insteadOf": expert["spec"]["version"]}
    return _override(expert, spec, overrides, reason)


def once(
    action: str, expert: Body, overrides: Sequence[Body], reason: str
) -> dict[str, Any] | Skip:
    """Promote, abort or retry the revision that is shown. Raises Refused where there is none."""
    name, rollout = expert["metadata"]["name"], expert.get("status", {}).get("rollout", {})
    outcome = rollout.get("outcome")
    in_progress = outcome in ("Progressing", "Paused")
    if action == "Retry" and outcome not in ("RolledBack", "Aborted"):
        raise Refused(f"expert {name!r} has no failed rollout to retry ({outcome or 'none yet'})")
    if action != "Retry" and not in_progress:
        raise Refused(f"expert {name!r} has no rollout in progress ({outcome or 'none yet'})")
    return _override(expert, {"action": action, "revision": rollout["revision"]}, overrides, reason)


def holding(expert: Body, overrides: Sequence[Body]) -> tuple[str, ...]:
    """Return the names of the Overrides that `resume` removes: Pause and Serve of this expert."""
    return tuple(
        body["metadata"]["name"]
        for body in overrides
        if _targets(body, expert)
        and body["spec"]["action"] in ("Pause", "Serve")
        and body.get("status", {}).get("state") != "Lapsed"
    )


def _before(past: Sequence[Past], served: str | None) -> str | None:
    numbers = [p.revision for p in past if p.version == served]
    earlier = [p.version for p in past if numbers and p.revision < max(numbers)]
    return next((version for version in reversed(earlier) if version != served), None)


def _targets(override: Body, expert: Body) -> bool:
    ref = override["spec"]["targetRef"]
    return bool(ref["kind"] == "Expert" and ref["name"] == expert["metadata"]["name"])


def _override(
    expert: Body, decision: Mapping[str, Any], overrides: Sequence[Body], reason: str
) -> dict[str, Any] | Skip:
    name = expert["metadata"]["name"]
    for body in overrides:
        same = all(body["spec"].get(key) == value for key, value in decision.items())
        alive = body.get("status", {}).get("state", "Pending") in ("Pending", "Active")
        if same and alive and _targets(body, expert):
            return Skip(f"Override {body['metadata']['name']} already asks for that")
    spec = {"targetRef": {"kind": "Expert", "name": name}, **decision}
    if reason:
        spec["reason"] = reason
    return {
        "apiVersion": API_VERSION,
        "kind": "Override",
        "metadata": {"generateName": f"{name}-{decision['action'].lower()}-"},
        "spec": spec,
    }
