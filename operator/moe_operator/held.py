"""An expert version that the gates in service do not accept: warm, without weight, until one does.

It is tried out with the gate that accepts it, on the same sessions, whichever of the two was
applied first; its rollout has the salt and the weights of the gate's. Where there is nothing to try
it out against, or a person wants it, it is served at once, in the same epoch as the gate. No
rollout is written down for it before.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from moe_core.rollout import Outcome, Rollout, Version, WeightSince
from moe_core.rows import ExpertRow
from moe_operator.case import Case, Decision
from moe_operator.ending import cool_down, swap
from moe_operator.reason import Reason, Why, written


def hold(row: ExpertRow, case: Case) -> Decision:
    """Keep pods for the wanted version: for the first step, that of the gate that awaits it."""
    wanted, first = case.wanted, case.expert.rollout.steps[0].weight
    room = case.room(case.awaited or first)
    served = row.stable is not None and row.stable.sha256 == wanted.sha256
    held = Why(Reason.HELD, f"{wanted.version} is held until a gate that accepts it: {case.misfit}")
    reached = case.reach.workers(wanted.sha256)
    if wanted.sha256 in case.refused:
        why = Why(Reason.ARTIFACT_REFUSED, f"{wanted.version}: {case.refused[wanted.sha256]}")
    elif served or reached >= max(1, room):
        why = held
    else:
        lacking = f"{reached} of {room} pods of {wanted.version} serve; {case.misfit}"
        waits = case.waits_for_pods(wanted.sha256, lacking)
        why = waits if case.awaited or waits.reason is Reason.UNSCHEDULABLE else held
    resting = cool_down(row, why, case)
    return replace(resting, room=0 if served else room, held=True)


def may_be_tried(row: ExpertRow, case: Case) -> bool:
    """Return whether some sessions can see what is held while others stay with what is served."""
    other = row.stable is not None and row.stable.sha256 != case.wanted.sha256
    return other and case.decided.serve is None


def tried_with(row: ExpertRow, decision: Decision, case: Case, gate: Rollout) -> Decision | None:
    """Name what is held as a candidate beside a gate in the dark; None where it cannot serve yet.

    `gate` is the rollout whose sessions it is to share.
    """
    wanted, room = case.wanted, case.room(case.awaited)
    if not decision.held or decision.row.previous is not None or _failed(row, case):
        return None
    if wanted.sha256 in case.refused or case.reach.workers(wanted.sha256) < room:
        return None
    rollout = Rollout(
        revision=case.revision,
        target=wanted,
        step=gate.step,
        step_began=written(case.now),
        outcome=gate.outcome,
        reason="",
        salt=gate.salt,
        shadow_percent=case.expert.rollout.shadow_percent,
    )
    new = replace(
        decision.row, candidate=wanted, revoked=_without(row.revoked, wanted), rollout=rollout
    )
    told = Why(Reason.STARTED, f"{wanted.version} is on trial with its gate, without weight yet")
    return Decision(new, Why(Reason.CANARY, told.message), room, told, case.now)


def went_back(rollout: Rollout) -> bool:
    """Return whether a version was taken back for its gate's sake: then it is held once more."""
    failed = rollout.outcome in (Outcome.ROLLED_BACK, Outcome.ABORTED)
    return failed and Why.parse(rollout.reason, Reason.ROLLED_BACK).reason is Reason.HELD


def _failed(row: ExpertRow, case: Case) -> bool:
    """Return whether this revision was tried, and nobody has asked for it again."""
    rollout = row.rollout
    if rollout is None or rollout.revision != case.revision:
        return False
    return rollout.outcome.ended and not went_back(rollout)


def _without(revoked: Iterable[str], version: Version) -> tuple[str, ...]:
    return tuple(sha256 for sha256 in revoked if sha256 != version.sha256)


def joined(row: ExpertRow, decision: Decision, case: Case) -> ExpertRow | None:
    """Return the row as it is beside a gate that accepts what is held; None where it cannot be."""
    wanted = case.wanted
    if not decision.held:
        return None
    waits = decision.row.previous is not None or case.decided.pause is not None
    if waits and case.decided.serve is None:
        return None
    if row.stable is not None and row.stable.sha256 == wanted.sha256:
        return replace(decision.row, stable=wanted)
    enough = case.reach.workers(wanted.sha256) >= max(1, case.expert.replicas)
    if not enough or wanted.sha256 in case.refused:
        return None
    if case.decided.serve is not None and row.stable is not None:
        return swap(row, row.stable, case).row
    if _failed(row, case):
        return None
    return replace(
        decision.row,
        stable=wanted,
        candidate=None,
        revoked=_without(row.revoked, wanted),
        rollout=_served_at_once(row, case),
        layers=case.expert.layers,
    )


def _served_at_once(row: ExpertRow, case: Case) -> Rollout:
    """Write down that every session uses the version from this epoch on, and none did before."""
    before = () if row.stable is None else (WeightSince(case.epoch - 1, 0),)
    return Rollout(
        revision=case.revision,
        target=case.wanted,
        step=0,
        step_began=written(case.now),
        outcome=Outcome.PROMOTED,
        reason=str(Why(Reason.PROMOTED, f"{case.wanted.version} is served, with its gate")),
        salt=case.salt(row),
        weights=(*before, WeightSince(case.epoch, 100)),
    )
