"""The steps of a canary: admitted once routable, raised with evidence and room, held, or ended.

Down goes at once, up only with everything in place; a step that waits says what for.
"""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from moe_core.rollout import Outcome, Rollout, WeightSince
from moe_core.rows import ExpertRow
from moe_operator.case import Case, Decision
from moe_operator.ending import promote, take_back
from moe_operator.evaluators import NAME
from moe_operator.judgement import Finding
from moe_operator.labels import short
from moe_operator.override_spec import Action
from moe_operator.overrides import because
from moe_operator.reason import Reason, Why, moment, written
from moe_operator.verdict import Tier

# What the table keeps of a verdict, at most.
_LONGEST: Final = 1024


def step(row: ExpertRow, rollout: Rollout, case: Case) -> Decision:
    """Return the next change of a rollout in progress, or why there is none yet."""
    once, target = case.decided.once, rollout.target
    if once is not None and once.action is Action.ABORT:
        why = Why(Reason.ABORTED, f"{target.version} was taken back: {because(once)}")
        return take_back(row, rollout, Outcome.ABORTED, why, case, once.requested_by)
    objection = _objection(rollout, case)
    if objection is not None:
        return take_back(row, rollout, Outcome.ROLLED_BACK, objection, case)
    if once is not None and once.action is Action.PROMOTE and row.candidate is not None:
        sentence = f"{target.version} is served: {because(once)}"
        return promote(row, rollout, sentence, case, once.requested_by)
    if (case.decided.pause is not None) != (rollout.outcome is Outcome.PAUSED):
        return _hold_or_resume(row, rollout, case)
    if row.candidate is None:
        return _admit(row, rollout, case)
    golden = case.judgement.of(Tier.QUALITY, NAME)
    if golden is not None and golden.passed and not rollout.evaluated:
        return _passed(row, rollout, golden.reason, case)
    return _raise(row, rollout, case)


def _objection(rollout: Rollout, case: Case) -> Why | None:
    """Return why the candidate cannot stay, if so."""
    target, objection = rollout.target, case.judgement.objection
    if target.sha256 in case.refused:
        return Why(Reason.ARTIFACT_REFUSED, f"{target.version}: {case.refused[target.sha256]}")
    if objection is not None:
        return Why(Reason.ROLLED_BACK, f"{target.version} was taken back: {objection.reason}")
    return None


def _hold_or_resume(row: ExpertRow, rollout: Rollout, case: Case) -> Decision:
    """Write down that a person holds the rollout, or lets it go on."""
    pause = case.decided.pause
    outcome = Outcome.PROGRESSING if pause is None else Outcome.PAUSED
    changed = replace(rollout, outcome=outcome)
    reason = Reason.CANARY if pause is None else Reason.PAUSED
    said = "goes on" if pause is None else f"held: {because(pause)}"
    why = Why(reason, f"{_place(changed, case)}: {said}; {_summary(rollout, case)}")
    new = replace(row, rollout=changed)
    return Decision(new, why, _room(changed, case), told=why, again_at=case.now)


def _admit(row: ExpertRow, rollout: Rollout, case: Case) -> Decision:
    """Name the candidate, without weight, once every router reaches enough of its pods."""
    target, room = rollout.target, case.room(_next_weight(rollout, case))
    reached = case.reach.workers(target.sha256)
    if reached >= room:
        told = Why(Reason.STARTED, f"{target.version} is on trial, without weight yet")
        why = Why(Reason.CANARY, f"{_place(rollout, case)}: {told.message}")
        dark = replace(
            rollout,
            step_began=written(case.now),
            shadow_percent=case.expert.rollout.shadow_percent,
        )
        new = replace(row, candidate=target, rollout=dark)
        return Decision(new, why, room, told, case.now)
    deadline_s = case.expert.rollout.progress_deadline_s
    ends = case.deadline(target.sha256, moment(rollout.step_began))
    why = case.waits_for_pods(target.sha256, f"{reached} of {room} pods of {target.version} serve")
    held = rollout.outcome is Outcome.PAUSED
    blameless = why.reason in (Reason.WAITING_FOR_ROUTERS, Reason.UNSCHEDULABLE)
    if ends > case.now or held or blameless:
        return Decision(row, why, room, again_at=ends if ends > case.now else None)
    sentence = f"{target.version} could not serve within {deadline_s} s: {why.message}"
    over = Why(Reason.DEADLINE_EXCEEDED, sentence)
    return take_back(row, rollout, Outcome.ROLLED_BACK, over, case)


def _passed(row: ExpertRow, rollout: Rollout, sentence: str, case: Case) -> Decision:
    """Write down that the candidate passed the golden set: its evaluator is needed no more."""
    new = replace(row, rollout=replace(rollout, evaluated=sentence[:_LONGEST]))
    told = Why(Reason.EVALUATED, f"{rollout.target.version} passed: {sentence}")
    why = Why(Reason.CANARY, f"{_place(rollout, case)}: {sentence}")
    return Decision(new, why, _room(rollout, case), told, case.now)


def _raise(row: ExpertRow, rollout: Rollout, case: Case) -> Decision:
    """Raise the weight, or promote after the last step, if nothing is left to wait for."""
    waits, again_at = _waits(rollout, case)
    place, room = _place(rollout, case), _room(rollout, case)
    weight = _next_weight(rollout, case)
    missing = case.judgement.missing(weight)
    said = "; ".join((f"{place}: {_summary(rollout, case)}", *waits))
    if rollout.outcome is Outcome.PAUSED:
        held = because(case.decided.pause) if case.decided.pause else ""
        return Decision(row, Why(Reason.PAUSED, f"{said}; held: {held}"), room)
    if missing is not None:
        return _lacking(row, rollout, missing, said, case)
    if waits:
        return Decision(row, Why(Reason.CANARY, said), room, again_at=again_at)
    needed, reached = case.room(weight), case.reach.workers(rollout.target.sha256)
    if reached < needed:
        lacking = f"{said}; {reached} of {needed} pods for {weight}% serve"
        return Decision(row, case.waits_for_pods(rollout.target.sha256, lacking), needed)
    if rollout.step >= len(case.expert.rollout.steps):
        seen = _summary(rollout, case)
        sentence = f"{rollout.target.version} is served, after {seen} in the last step"
        return promote(row, rollout, sentence, case)
    return _raised(row, rollout, weight, case)


def _lacking(row: ExpertRow, rollout: Rollout, missing: Finding, said: str, case: Case) -> Decision:
    """Wait for evidence; past its deadline, and where time will not bring it, visibly."""
    strategy, room = case.expert.rollout, _room(rollout, case)
    deadline_s = strategy.evidence_deadline_s
    ends = moment(rollout.step_began) + timedelta(seconds=deadline_s)
    if missing.barred is not None:
        paused = f"{said}; paused until that is over: promote or abort it, or wait"
        return Decision(row, Why(missing.barred, paused), room)
    if not missing.stalled and ends > case.now:
        return Decision(row, Why(Reason.CANARY, said), room, again_at=ends)
    late = "it cannot tell" if missing.stalled else f"not within {deadline_s} s"
    paused = f"{said}; paused for want of evidence ({late}): promote or abort it, or wait"
    return Decision(row, Why(Reason.EVIDENCE_MISSING, paused), room)


def _raised(row: ExpertRow, rollout: Rollout, weight: int, case: Case) -> Decision:
    raised = replace(
        rollout,
        step=rollout.step + 1,
        step_began=written(case.now),
        shadow_percent=case.expert.rollout.shadow_percent,
        weights=(*rollout.weights, WeightSince(case.epoch, weight)),
    )
    told = Why(Reason.WEIGHT_RAISED, f"{weight}% of new sessions see {rollout.target.version}")
    why = Why(Reason.CANARY, f"{_place(raised, case)}: begins")
    new = replace(row, rollout=raised)
    return Decision(new, why, case.room(weight), told, case.now)


def _waits(rollout: Rollout, case: Case) -> tuple[tuple[str, ...], datetime | None]:
    """Return what this step waits for beside evidence, and when its pause is over."""
    waits: list[str] = []
    epoch = rollout.weights[-1].epoch if rollout.weights else case.epoch - 1
    if not case.reach.ready:
        waits.append("no router is ready")
    unheard = case.reach.unheard
    if unheard:
        waits.append(f"{', '.join(unheard)} was not heard yet")
    behind = [pod for pod in case.reach.behind(epoch) if pod not in unheard]
    if behind:
        waits.append(f"{', '.join(behind)} has not taken epoch {epoch} yet")
    if rollout.step == 0:
        return tuple(waits), None
    strategy = case.expert.rollout
    pause_s = strategy.steps[min(rollout.step, len(strategy.steps)) - 1].pause_s
    left = moment(rollout.step_began) + timedelta(seconds=pause_s) - case.now
    if left <= timedelta():
        return tuple(waits), None
    waits.append(f"pause {math.ceil(left.total_seconds())} s more")
    return tuple(waits), case.now + left


def _summary(rollout: Rollout, case: Case) -> str:
    """Say what is missing, or how much was seen."""
    missing = case.judgement.missing(_next_weight(rollout, case))
    if missing is not None:
        return missing.verdict.reason
    quality, service = (Tier.QUALITY, NAME), (Tier.SERVICE, "requests")
    seen = case.judgement.of(*(service if rollout.step else quality))
    return "without weight" if seen is None else seen.reason


def _place(rollout: Rollout, case: Case) -> str:
    """Say where a rollout is: `step 2 of 4 at 25%`."""
    return f"step {rollout.step} of {len(case.expert.rollout.steps)} at {rollout.weight}%"


def _next_weight(rollout: Rollout, case: Case) -> int:
    """Return the share after this step; 100 is the promotion. It never falls."""
    steps = case.expert.rollout.steps
    following = steps[rollout.step].weight if rollout.step < len(steps) else 100
    return max(rollout.weight, following)


def _room(rollout: Rollout, case: Case) -> int:
    """Return the pods of this step; room already made for the next one is kept."""
    now, after = case.room(rollout.weight), case.room(_next_weight(rollout, case))
    if rollout.step == 0:
        return after
    return min(max(now, case.replicas.get(short(rollout.target.sha256), 0)), after)
