"""An expert version that the gates in service do not accept: warm, without weight, until one does.

It is served in the same epoch as the gate that accepts it, whichever of the two was applied first.
No rollout is written down for it before, and sessions on the old version move with the gate: none
is left with a pair that does not fit.
"""

from __future__ import annotations

from dataclasses import replace

from moe_core.rollout import Outcome, Rollout, WeightSince
from moe_core.rows import ExpertRow
from moe_operator.case import Case, Decision
from moe_operator.ending import cool_down, swap
from moe_operator.reason import Reason, Why, written


def hold(row: ExpertRow, case: Case) -> Decision:
    """Keep pods for the wanted version: for a first step, or all of them where a gate awaits it."""
    wanted, first = case.wanted, case.expert.rollout.steps[0].weight
    room = case.expert.replicas if case.awaited else case.room(first)
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


def joined(row: ExpertRow, decision: Decision, case: Case) -> ExpertRow | None:
    """Return the row as it is beside a gate that accepts what is held; None where it cannot be."""
    wanted, rollout = case.wanted, row.rollout
    if not decision.held:
        return None
    waits = decision.row.previous is not None or case.decided.pause is not None
    if waits and case.decided.serve is None:
        return None
    if row.stable is not None and row.stable.sha256 == wanted.sha256:
        return replace(decision.row, stable=wanted)
    failed = rollout is not None and rollout.revision == case.revision and rollout.outcome.ended
    enough = case.reach.workers(wanted.sha256) >= max(1, case.expert.replicas)
    if not enough or wanted.sha256 in case.refused:
        return None
    if case.decided.serve is not None and row.stable is not None:
        return swap(row, row.stable, case).row
    if failed:
        return None
    return replace(
        decision.row,
        stable=wanted,
        candidate=None,
        revoked=tuple(sha256 for sha256 in row.revoked if sha256 != wanted.sha256),
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
