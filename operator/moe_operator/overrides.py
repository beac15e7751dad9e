"""What people decided about an expert, apart from its spec: which Overrides hold, and what follows.

`Serve` and `Pause` hold while spec.version is what they say; the others act once, on the revision
and step that the person saw, and lapse when that is over. Whether something was done is read from
the table, and of what the table has forgotten from the history, never from the Override's own
status, except that what is over stays over.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from moe_core.rollout import Outcome, Rollout, Version
from moe_core.rows import ExpertRow
from moe_operator.fit import Accepted
from moe_operator.override_spec import Action, OverrideSpec
from moe_operator.reason import Reason, Why
from moe_operator.spec import ExpertSpec
from moe_operator.world import Revision


class State(StrEnum):
    """`status.state` of an Override."""

    PENDING = "Pending"
    ACTIVE = "Active"
    DONE = "Done"
    LAPSED = "Lapsed"
    REFUSED = "Refused"


_OVER: Final = frozenset({State.DONE, State.LAPSED, State.REFUSED})
_MESSAGE_LIMIT: Final = 1024
_HOLDING: Final = frozenset({Action.SERVE, Action.PAUSE})
_DONE: Final = {Action.PROMOTE: Outcome.PROMOTED, Action.ABORT: Outcome.ABORTED}


@dataclass(frozen=True, slots=True)
class Decided:
    """The Overrides of one expert that count now, and the version that `serve` asks for."""

    serve: OverrideSpec | None = None
    served: Version | None = None
    pause: OverrideSpec | None = None
    once: OverrideSpec | None = None
    # Why a version cannot be served beside the gates in service, by its name.
    misfits: Mapping[str, str] = field(default_factory=dict)


def decide(
    expert: ExpertSpec,
    row: ExpertRow,
    revisions: Iterable[Revision],
    overrides: Iterable[OverrideSpec],
    accepted: Accepted,
    restored: Iterable[tuple[OverrideSpec, Version]] = (),
) -> Decided:
    """Return what holds and what is to act; of several that hold, the newest.

    `revisions` and `overrides` are the expert's own; `accepted` is what gates in service accept.
    `restored` is what Overrides of its mixture ask of it, which may bring the gate that fits.
    """
    own = sorted(
        (o for o in overrides if not o.meta.deleting),
        key=lambda o: o.meta.age_key,
    )
    holding = [o for o in own if o.action in _HOLDING and o.instead_of == expert.version.version]
    known = known_versions(row, revisions)
    misfits = {o.version: accepted.refusal(expert.expert_id, o.version) for o in holding}
    fitting = [o for o in holding if not misfits[o.version]]
    serves = [*((o, known[o.version]) for o in fitting if _can_serve(o, known)), *restored]
    serve, served = max(serves, key=lambda s: s[0].meta.age_key, default=(None, None))
    rollout = row.rollout
    return Decided(
        serve=serve,
        served=served,
        pause=next((o for o in reversed(holding) if o.action is Action.PAUSE), None),
        once=next((o for o in own if rollout is not None and _acts(o, expert, rollout)), None),
        misfits=misfits,
    )


def lifted(row: ExpertRow, decided: Decided) -> bool:
    """Return whether what an Override took back is wanted again, the Override being gone."""
    rollout = row.rollout
    if rollout is None or decided.serve is not None or rollout.outcome is not Outcome.ROLLED_BACK:
        return False
    return Why.parse(rollout.reason, Reason.ROLLED_BACK).reason is Reason.OVERRIDDEN


def known_versions(row: ExpertRow, revisions: Iterable[Revision]) -> dict[str, Version]:
    """Return every version of the expert that can be served, by name, the newest of a name."""
    known = {revision.version.version: revision.version for revision in revisions}
    return known | {version.version: version for version in reversed(row.named)}


def _can_serve(override: OverrideSpec, known: dict[str, Version]) -> bool:
    return (
        override.action is Action.SERVE
        and override.version in known
        and override.version != override.instead_of
    )


def _acts(override: OverrideSpec, expert: ExpertSpec, rollout: Rollout) -> bool:
    """Return whether an Override that acts once finds what it was made for."""
    if override.action in _HOLDING or override.meta.status.get("state") in _OVER:
        return False
    if override.revision != rollout.revision:
        return False
    if override.action is Action.RETRY:
        failed = rollout.outcome in (Outcome.ROLLED_BACK, Outcome.ABORTED)
        return failed and rollout.target.sha256 == expert.version.sha256
    step_seen = override.step is None or override.step == rollout.step
    return not rollout.outcome.ended and step_seen


def because(override: OverrideSpec) -> str:
    """Return who asked and why, as a half sentence."""
    by = f" by {override.requested_by}" if override.requested_by else ""
    why = f": {override.reason}" if override.reason else ""
    return f"Override {override.meta.name}{by}{why}"


def status_of(
    override: OverrideSpec,
    expert: ExpertSpec,
    decided: Decided,
    row: ExpertRow,
    known: dict[str, Version],
    history: Iterable[Mapping[str, Any]],
) -> dict[str, Any]:
    """Return the status of an Override, given the row and history as they are after this plan."""
    before = override.meta.status
    if override.action not in _HOLDING and before.get("state") in _OVER:
        return dict(before)
    if override.action in _HOLDING:
        state, message = _holding_state(override, expert, decided, row, known)
    else:
        past = next((e for e in history if e["revision"] == override.revision), {})
        state, message = _once_state(override, expert, row.rollout, past)
    return {
        "state": state.value,
        "message": message,
        "observedGeneration": override.meta.generation,
    }


def waiting_status(override: OverrideSpec, why: Why | None) -> dict[str, Any]:
    """Return the status of an Override whose target does not count, or is not there."""
    if override.action not in _HOLDING and override.meta.status.get("state") in _OVER:
        return dict(override.meta.status)
    message = f"there is no {override.kind.value} {override.target}"
    if why is not None:
        message = f"{override.kind.value} {override.target} does not count: {why.message}"
    return {
        "state": State.PENDING.value,
        "message": message[:_MESSAGE_LIMIT],
        "observedGeneration": override.meta.generation,
    }


def _holding_state(
    override: OverrideSpec,
    expert: ExpertSpec,
    decided: Decided,
    row: ExpertRow,
    known: dict[str, Version],
) -> tuple[State, str]:
    wanted = expert.version.version
    if override.instead_of != wanted:
        return State.LAPSED, f"spec.version is {wanted}, no longer {override.instead_of}"
    if override.action is Action.PAUSE:
        newer = decided.pause
        if newer is not None and newer != override:
            return State.LAPSED, f"Override {newer.meta.name} is newer"
        return State.ACTIVE, f"rollouts of {wanted} go no step further"
    if override.version == override.instead_of:
        return State.REFUSED, f"version and insteadOf are both {override.version}"
    if override.version not in known:
        names = ", ".join(sorted(known))
        return State.REFUSED, f"there is no version {override.version}; there are {names}"
    if decided.misfits.get(override.version):
        return State.REFUSED, decided.misfits[override.version]
    if decided.serve is not None and decided.serve != override:
        return State.LAPSED, f"Override {decided.serve.meta.name} is newer"
    if row.stable is not None and row.stable.version == override.version and not row.candidate:
        return State.ACTIVE, f"{override.version} is served instead of {wanted}"
    return State.PENDING, f"{override.version} is served as soon as it can be"


def _once_state(
    override: OverrideSpec,
    expert: ExpertSpec,
    rollout: Rollout | None,
    past: Mapping[str, Any],
) -> tuple[State, str]:
    """Return what became of an Override; `past` tells how its revision ended, if it did."""
    revision = override.revision
    if rollout is None or rollout.revision < revision:
        return State.PENDING, f"revision {revision} has not begun"
    if rollout.revision > revision:
        return _past_state(override, rollout, past)
    if override.action is Action.RETRY:
        return _retry_state(expert, rollout)
    done = _DONE[override.action]
    if rollout.outcome is done:
        return State.DONE, f"revision {revision}, {rollout.target.version}, is {done}"
    if rollout.outcome.ended:
        return State.LAPSED, f"revision {revision} has ended: it is {rollout.outcome}"
    if override.step is not None and override.step != rollout.step:
        return State.LAPSED, f"step {override.step} is over; step {rollout.step} is in progress"
    return State.PENDING, f"{rollout.target.version} is not routable yet"


def _past_state(
    override: OverrideSpec, rollout: Rollout, past: Mapping[str, Any]
) -> tuple[State, str]:
    """Return what became of an Override of a revision that another one has followed."""
    revision, version = override.revision, past.get("version")
    if override.action is Action.RETRY:
        if rollout.reason == because(override) or rollout.target.version == version:
            return State.DONE, f"tried again as revision {rollout.revision}"
    elif past.get("outcome") == _DONE[override.action] and because(override) in past["why"]:
        return State.DONE, f"revision {revision}, {version}, is {past['outcome']}"
    return State.LAPSED, f"revision {revision} is over; revision {rollout.revision} is newer"


def _retry_state(expert: ExpertSpec, rollout: Rollout) -> tuple[State, str]:
    if rollout.target.sha256 != expert.version.sha256:
        return State.LAPSED, f"spec.version is {expert.version.version}"
    if rollout.outcome in (Outcome.ROLLED_BACK, Outcome.ABORTED):
        return State.PENDING, "another Override or rollout has to end first"
    return State.LAPSED, f"revision {rollout.revision} has not failed: it is {rollout.outcome}"
