"""Turns what a person asks for into an Override, or says why there is nothing to do.

Pure: the Expert or Gate, its history and the Overrides there are go in, a body or a sentence comes
out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kubectl_moe.names import API_VERSION, described, told
from kubectl_moe.past import Past, find, readable

Body = Mapping[str, Any]


class Refused(ValueError):
    """It cannot be done; the message says why and what can."""


@dataclass(frozen=True, slots=True)
class Skip:
    """Nothing needs doing, and why."""

    why: str


def rollback(
    expert: Body, past: Sequence[Past], overrides: Sequence[Body], to: str | None, reason: str
) -> dict[str, Any] | Skip:
    """Serve an earlier version instead of the one in the spec.

    `to` is a version's name or a revision's number. Without it: the stable version while a
    candidate is on trial, else the newest other version that was accepted before the one that is
    served. Raises Refused where there is none, and Unknown.
    """
    wanted = expert["spec"]["version"]
    served = expert.get("status", {}).get("version")
    on_trial = expert.get("status", {}).get("candidate")
    name = expert["metadata"]["name"]
    what = described(expert)
    version = served if on_trial else _before(readable(past), served)
    if to is not None:
        version = find(past, to, name).version
    if version is None:
        raise Refused(f"{what} has no earlier version to go back to")
    if served == version and not on_trial:
        return Skip(f"{what} already serves {version}")
    if version == wanted:
        raise Refused(
            f"{what}: {version} is what its spec asks for; "
            f"`kubectl moe resume {told(expert)}` removes the Overrides that "
            "keep it from being served"
        )
    spec = {"action": "Serve", "version": version, "insteadOf": wanted}
    return override_of(expert, spec, overrides, reason)


def pause(expert: Body, overrides: Sequence[Body], reason: str) -> dict[str, Any] | Skip:
    """Hold the rollout where it is, for as long as the Override exists."""
    spec = {"action": "Pause", "insteadOf": expert["spec"]["version"]}
    return override_of(expert, spec, overrides, reason)


def once(
    action: str, expert: Body, overrides: Sequence[Body], reason: str
) -> dict[str, Any] | Skip:
    """Promote, abort or retry the revision that is shown. Raises Refused where there is none."""
    what, rollout = described(expert), expert.get("status", {}).get("rollout", {})
    outcome = rollout.get("outcome")
    in_progress = outcome in ("Progressing", "Paused")
    if action == "Retry" and outcome not in ("RolledBack", "Aborted"):
        raise Refused(f"{what} has no failed rollout to retry ({outcome or 'none yet'})")
    if action != "Retry" and not in_progress:
        raise Refused(f"{what} has no rollout in progress ({outcome or 'none yet'})")
    return override_of(
        expert, {"action": action, "revision": rollout["revision"]}, overrides, reason
    )


def holding(target: Body, overrides: Sequence[Body]) -> tuple[str, ...]:
    """Return the names of the Overrides that `resume` removes: Pause and Serve of this object."""
    return tuple(
        body["metadata"]["name"]
        for body in overrides
        if targets(body, target)
        and body["spec"]["action"] in ("Pause", "Serve")
        and body.get("status", {}).get("state") != "Lapsed"
    )


def _before(past: Sequence[Past], served: str | None) -> str | None:
    numbers = [p.revision for p in past if p.version == served]
    earlier = [p.version for p in past if numbers and p.revision < max(numbers)]
    return next((version for version in reversed(earlier) if version != served), None)


def targets(override: Body, body: Body) -> bool:
    """Return whether an Override decides about this object."""
    ref = override["spec"]["targetRef"]
    return bool((ref["kind"], ref["name"]) == (body["kind"], body["metadata"]["name"]))


def alive(override: Body) -> bool:
    """Return whether an Override holds, or is still to act."""
    return override.get("status", {}).get("state", "Pending") in ("Pending", "Active")


def override_of(
    target: Body, decision: Mapping[str, Any], overrides: Sequence[Body], reason: str
) -> dict[str, Any] | Skip:
    """Return the Override of an Expert or a Mixture, unless there is one that says the same.

    It goes with its target: another object of that name has versions and revisions of its own.
    """
    kind, name = target["kind"], target["metadata"]["name"]
    for body in overrides:
        same = all(body["spec"].get(key) == value for key, value in decision.items())
        if same and alive(body) and targets(body, target):
            return Skip(f"Override {body['metadata']['name']} already asks for that")
    spec = {"targetRef": {"kind": kind, "name": name}, **decision}
    if reason:
        spec["reason"] = reason
    return {
        "apiVersion": API_VERSION,
        "kind": "Override",
        "metadata": {
            "generateName": f"{name}-{decision['action'].lower()}-",
            "ownerReferences": [_owner(target)],
        },
        "spec": spec,
    }


def _owner(target: Body) -> dict[str, str]:
    metadata = target["metadata"]
    return {
        "apiVersion": API_VERSION,
        "kind": target["kind"],
        "name": metadata["name"],
        "uid": metadata["uid"],
    }
