"""The next step of one expert: what its row of the table becomes, and why it waits.

A total function of the row, the spec and what is observed; it takes one step at a time, and taking
it again from what is then observed goes on from there. It writes nothing and knows no clock.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from moe_core.rollout import Outcome, Rollout, Version, WeightSince
from moe_core.rows import ExpertRow
from moe_operator.canary import step
from moe_operator.case import Case, Decision
from moe_operator.ending import cool_down, ended, give_way, promote, swap
from moe_operator.held import hold, went_back
from moe_operator.override_spec import Action
from moe_operator.overrides import because
from moe_operator.reason import Reason, Why, moment, written


def advance(row: ExpertRow, case: Case) -> Decision:
    """Return the next step towards the wanted version."""
    wanted = case.wanted
    if row.stable is None:
        return hold(row, case) if case.misfit else _first(row, case)
    if wanted.sha256 == row.stable.sha256:
        return _settle(row, row.stable, case)
    warm = row.previous is not None and row.previous.sha256 == wanted.sha256 and not case.misfit
    if warm and not case.reach.lost(wanted.sha256):
        return swap(row, row.stable, case)
    if case.decided.serve is not None:
        return _serve_instead(row, row.stable, case)
    return _try_out(row, row.stable, case)


def _first(row: ExpertRow, case: Case) -> Decision:
    """The first version needs no trial: it is served as soon as routers reach it."""
    wanted, rollout = case.wanted, row.rollout
    if (
        rollout is None
        or rollout.outcome.ended
        or (rollout.revision, rollout.target.sha256) != (case.revision, wanted.sha256)
    ):
        return begin(row, case)
    if case.reach.workers(wanted.sha256):
        told = Why(Reason.SERVING, f"{wanted.version} is served")
        over = ended(rollout, Outcome.PROMOTED, str(told), case)
        over = replace(over, weights=(WeightSince(case.epoch, 100),))
        new = replace(row, stable=wanted, rollout=over, layers=case.expert.layers)
        return Decision(new, Why(Reason.COMPLETE, told.message), told=told)
    if wanted.sha256 in case.refused:
        why = Why(Reason.ARTIFACT_REFUSED, f"{wanted.version}: {case.refused[wanted.sha256]}")
        return Decision(row, why, case.expert.replicas)
    return _starting(row, rollout, case)


def _starting(row: ExpertRow, rollout: Rollout, case: Case) -> Decision:
    """Wait for the first version; having nothing else to serve, it is never given up."""
    version, replicas = case.wanted.version, case.expert.replicas
    deadline_s = case.expert.rollout.progress_deadline_s
    ends = moment(rollout.step_began) + timedelta(seconds=deadline_s)
    why = case.waits_for_pods(case.wanted.sha256, f"{version} is being started")
    if replicas == 0:
        why = Why(Reason.SCALED_TO_ZERO, f"spec.replicas is 0: {version} is not started")
    elif ends <= case.now and why.reason is Reason.WAITING_FOR_PODS:
        sentence = f"{version} does not serve after {deadline_s} s: {why.message}"
        why = Why(Reason.DEADLINE_EXCEEDED, sentence)
    return Decision(row, why, replicas, again_at=ends if ends > case.now else None)


def _settle(row: ExpertRow, stable: Version, case: Case) -> Decision:
    """What is wanted is what is served: end a trial of anything else, and tidy up."""
    rollout, wanted = row.rollout, case.wanted
    if rollout is not None and not rollout.outcome.ended:
        return give_way(row, rollout, stable, case)
    if stable != wanted and not case.misfit:
        why = Why(Reason.COMPLETE, f"{wanted.version} is served")
        return Decision(replace(row, stable=wanted), why, again_at=case.now)
    return hold(row, case) if case.misfit else cool_down(row, _rest(case), case)


def _rest(case: Case) -> Why:
    serve = case.decided.serve
    if serve is None or case.wanted.sha256 == case.expert.version.sha256:
        return Why(Reason.COMPLETE, f"{case.wanted.version} is served")
    wanted = case.expert.version.version
    message = f"{case.wanted.version} is served instead of {wanted}: {because(serve)}"
    return Why(Reason.OVERRIDDEN, message)


def _serve_instead(row: ExpertRow, stable: Version, case: Case) -> Decision:
    """An Override wants a version that is not warm: start it, then swap, without steps."""
    rollout, wanted, serve = row.rollout, case.wanted, case.decided.serve
    reached = case.reach.workers(wanted.sha256)
    if rollout is not None and not rollout.outcome.ended:
        on_trial = rollout.target.sha256 == wanted.sha256
        if serve is not None and on_trial and reached and not case.misfit:
            sentence = f"{wanted.version} is served: {because(serve)}"
            return promote(row, rollout, sentence, case, serve.requested_by)
        if not on_trial or row.candidate is not None or case.misfit:
            return replace(give_way(row, rollout, stable, case), room=case.expert.replicas)
    elif case.misfit:
        return hold(row, case)
    elif reached:
        return swap(row, stable, case)
    if wanted.sha256 in case.refused:
        message = f"{wanted.version}: {case.refused[wanted.sha256]}"
        why = Why(Reason.ARTIFACT_REFUSED, message)
    else:
        starting = f"{wanted.version} is being started; {stable.version} is served until it can"
        why = case.waits_for_pods(wanted.sha256, starting)
    return Decision(row, why, case.expert.replicas)


def _try_out(row: ExpertRow, stable: Version, case: Case) -> Decision:
    """The spec asks for a version that is not stable: take the next step of its rollout."""
    rollout = row.rollout
    again = rollout is not None and went_back(rollout)
    if rollout is not None and rollout.revision == case.revision and not again:
        over = rollout.outcome.ended
        return _fallen(row, rollout, case) if over else step(row, rollout, case)
    if rollout is not None and not rollout.outcome.ended:
        dark = row.candidate is None and not case.misfit
        return begin(row, case) if dark else give_way(row, rollout, stable, case)
    if case.misfit:
        return hold(row, case)
    if row.previous is None:
        waits = Why(Reason.WAITING_FOR_TURN, f"{case.wanted.version} waits for its turn")
        return begin(row, case) if case.granted else Decision(row, waits, asks=True)
    message = (
        f"{case.wanted.version} waits until sessions of {row.previous.version} may move: "
        f"it is kept for {case.expert.rollout.scale_down_delay_s} s"
    )
    waiting = cool_down(row, Why(Reason.WAITING_FOR_PREVIOUS, message), case)
    return replace(waiting, room=_first_room(row, case))


def _fallen(row: ExpertRow, rollout: Rollout, case: Case) -> Decision:
    """A revision that failed is not tried again by itself."""
    aborted = rollout.outcome is Outcome.ABORTED
    why = Why.parse(rollout.reason, Reason.ABORTED if aborted else Reason.ROLLED_BACK)
    return cool_down(row, why, case)


def begin(row: ExpertRow, case: Case) -> Decision:
    """Write down that a revision is on trial; it serves nothing yet."""
    wanted, once = case.wanted, case.decided.once
    retry = once is not None and once.action is Action.RETRY
    rollout = Rollout(
        revision=case.revision,
        target=wanted,
        step=0,
        step_began=written(case.now),
        outcome=Outcome.PROGRESSING,
        reason=because(once) if once is not None and retry else "",
        salt=case.salt(row),
        by=once.requested_by if once is not None and retry else "",
    )
    revoked = tuple(sha256 for sha256 in row.revoked if sha256 != wanted.sha256)
    why = case.waits_for_pods(wanted.sha256, f"{wanted.version} is being started")
    new = replace(row, candidate=None, revoked=revoked, rollout=rollout)
    return Decision(new, why, _first_room(row, case), again_at=case.now)


def _first_room(row: ExpertRow, case: Case) -> int:
    first = row.stable is None
    return case.expert.replicas if first else case.room(case.expert.rollout.steps[0].weight)
