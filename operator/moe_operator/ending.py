"""How a rollout ends: promoted, taken back, or swapped away; and how long the loser stays warm.

Each is one change of one row, whole: weights, versions and the journal together.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from moe_core.rollout import Outcome, Rollout, Version, WeightSince
from moe_core.rows import ExpertRow
from moe_operator.case import Case, Decision
from moe_operator.overrides import because
from moe_operator.reason import Reason, Why, moment, written


def give_way(row: ExpertRow, rollout: Rollout, stays: Version, case: Case) -> Decision:
    """End a trial because something else is wanted, by a person or by the spec."""
    serve, target = case.decided.serve, rollout.target.version
    if serve is not None:
        sentence = f"{stays.version} is served instead of {target}: {because(serve)}"
        why = Why(Reason.OVERRIDDEN, sentence)
        return take_back(row, rollout, Outcome.ROLLED_BACK, why, case, serve.requested_by)
    if case.wanted.sha256 == stays.sha256:
        sentence = f"spec.version was set back to {case.wanted.version}"
    else:
        sentence = f"spec.version is now {case.wanted.version}"
    return take_back(row, rollout, Outcome.ABORTED, Why(Reason.ABORTED, sentence), case)


def take_back(
    row: ExpertRow, rollout: Rollout, outcome: Outcome, why: Why, case: Case, by: str = ""
) -> Decision:
    """Return the candidate's weight to nothing, in one epoch, waiting for nobody.

    `by` is the person who asked for it, if one did.
    """
    revoked = row.revoked if row.candidate is None else revoke(row, row.candidate)
    over = weighing(ended(rollout, outcome, str(why), case, by), 0, case)
    new = replace(row, candidate=None, revoked=revoked, rollout=over)
    return Decision(new, why, told=why, again_at=cold_at(new, case))


def weighing(rollout: Rollout, percent: int, case: Case) -> Rollout:
    """Let sessions that begin from now on be seen to use the target or not.

    Those that began before keep what they had written down: whether they lose it is read there.
    """
    if not rollout.weights or rollout.weight == percent:
        return rollout
    return replace(rollout, weights=(*rollout.weights, WeightSince(case.epoch, percent)))


def revoke(row: ExpertRow, version: Version) -> tuple[str, ...]:
    """Add a version to those that get no row; the oldest are forgotten, having no pods."""
    others = [sha256 for sha256 in row.revoked if sha256 != version.sha256]
    return (*others[-7:], version.sha256)


def ended(rollout: Rollout, outcome: Outcome, reason: str, case: Case, by: str = "") -> Rollout:
    return replace(rollout, outcome=outcome, reason=reason, step_began=written(case.now), by=by)


def promote(row: ExpertRow, rollout: Rollout, sentence: str, case: Case, by: str = "") -> Decision:
    """Make the candidate stable; the old one is kept for the sessions that use it."""
    # Also after no step at all a promotion is told from a first version, which takes from nobody.
    weights = (*(rollout.weights or (WeightSince(0, 0),)), WeightSince(case.epoch, 100))
    said = str(Why(Reason.PROMOTED, sentence))
    over = replace(ended(rollout, Outcome.PROMOTED, said, case, by), weights=weights)
    new = replace(
        row,
        stable=rollout.target,
        candidate=None,
        previous=row.stable,
        rollout=over,
        layers=case.expert.layers,
    )
    told = Why(Reason.PROMOTED, sentence)
    return Decision(new, Why(Reason.COMPLETE, sentence), told=told, again_at=cold_at(new, case))


def swap(row: ExpertRow, stable: Version, case: Case) -> Decision:
    """Serve another version in one epoch, without steps, and no row more by what was stable."""
    wanted, serve = case.wanted, case.decided.serve
    if serve is not None:
        sentence = f"{wanted.version} is served instead of {stable.version}: {because(serve)}"
        why = Why(Reason.OVERRIDDEN, sentence)
    else:
        why = Why(Reason.ROLLED_BACK, f"spec.version was set back to {wanted.version}")
    revoked = tuple(sha256 for sha256 in revoke(row, stable) if sha256 != wanted.sha256)
    rollout = row.rollout
    if rollout is not None:
        served = rollout.target.sha256 == wanted.sha256
        outcome = Outcome.PROMOTED if served else Outcome.ROLLED_BACK
        by = "" if serve is None else serve.requested_by
        rollout = weighing(ended(rollout, outcome, str(why), case, by), 100 if served else 0, case)
    new = replace(
        row, stable=wanted, candidate=None, previous=None, revoked=revoked, rollout=rollout
    )
    return Decision(new, why, told=why, again_at=cold_at(new, case))


def cool_down(row: ExpertRow, why: Why, case: Case) -> Decision:
    """Let the version that was replaced go, when its time is over and every router knows."""
    rollout = row.rollout
    if row.previous is None or rollout is None:
        return Decision(row, why, again_at=cold_at(row, case))
    ends = cold_at(row, case)
    promoted = rollout.weights[-1].epoch if rollout.weights else 0
    if ends is not None or not case.reach.acknowledged(promoted):
        return Decision(row, why, again_at=ends)
    return Decision(replace(row, previous=None), why)


def keeps_size(row: ExpertRow, case: Case) -> bool:
    """Return whether stable is not made smaller: in a rollout, and while its loser stays warm.

    A very first version replaces nothing.
    """
    rollout = row.rollout
    if row.stable is None or rollout is None:
        return False
    if not rollout.outcome.ended or row.previous is not None:
        return True
    first = rollout.outcome is Outcome.PROMOTED and len(rollout.weights) < 2
    return not first and cold_at(row, case) is not None


def cold_at(row: ExpertRow, case: Case) -> datetime | None:
    """Return when the loser of an ended rollout need no longer be warm; None where that is past."""
    if row.rollout is None or not row.rollout.outcome.ended:
        return None
    delay = timedelta(seconds=case.expert.rollout.scale_down_delay_s)
    ends = moment(row.rollout.step_began) + delay
    return ends if ends > case.now else None
