"""Keeps gates and the experts that are tried out with them in step: a change is of all or of none.

Every one of them is judged alone, by its own evidence. Whoever objects takes all of them back, who
waits lets all wait, and a person who asks something of one asks it of all. Once they are promoted,
what they replaced goes together, or comes back with any of the gates. Begins nothing; that is
`joining`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from moe_core.rollout import Outcome, Rollout, Version
from moe_operator.case import Decision
from moe_operator.ending import ended, give_way, promote, revoke, take_back, weighing
from moe_operator.fit import Draw, draw
from moe_operator.gate_turn import GateTurn
from moe_operator.override_spec import Action, OverrideSpec
from moe_operator.overrides import because
from moe_operator.reason import Reason, Why
from moe_operator.spec import Tried
from moe_operator.turn import Turn


def keep_in_step(
    gates: Sequence[GateTurn], experts: Sequence[Turn]
) -> tuple[tuple[GateTurn, ...], tuple[Turn, ...]]:
    """Return the turns as they are where those that share their sessions go on together."""
    groups = defaultdict[Draw, list[Turn]](list)
    for turn in (*(one.turn for one in gates), *experts):
        if (drawn := draw(turn.before)) is not None:
            groups[drawn].append(turn)
    joint = (group for group in groups.values() if len(group) > 1 and _is_gate(group[0]))
    now = {turn.row.expert_id: turn for group in joint for turn in _in_step(group)}
    led = (replace(one, turn=now.get(one.turn.row.expert_id, one.turn)) for one in gates)
    return tuple(led), tuple(now.get(turn.row.expert_id, turn) for turn in experts)


def _is_gate(turn: Turn) -> bool:
    return turn.case.expert.kind is Tried.GATE


def _in_step(turns: Sequence[Turn]) -> Sequence[Turn]:
    """Let gates, which come first, and their experts go on together."""
    if turns[0].before.candidate is None:
        return _afterwards(turns)
    left = next((turn for turn in turns if _left(turn)), None)
    if left is not None:
        return [_taken_back(turn, left) for turn in turns]
    asked = next((turn for turn in turns if _asked_for(turn) is not None), None)
    if asked is not None:
        return [_promoted(turn, asked) for turn in turns]
    held = next((turn for turn in turns if _is_held(turn)), None)
    if held is not None:
        return [_held(turn, held) for turn in turns]
    slow = next((turn for turn in turns if not _goes_on(turn)), None)
    if slow is None:
        return turns
    return [_waiting(turn, slow) if _goes_on(turn) else turn for turn in turns]


def _rollout(rollout: Rollout | None) -> Rollout:
    assert rollout is not None  # of what is tried out there is one
    return rollout


def _stable(version: Version | None) -> Version:
    assert version is not None  # nothing is tried out against nothing
    return version


def _left(turn: Turn) -> bool:
    """Return whether a candidate is no longer tried out, and not promoted either."""
    target = _rollout(turn.before.rollout).target
    return turn.row.candidate is None and _stable(turn.row.stable).sha256 != target.sha256


def _asked_for(turn: Turn) -> OverrideSpec | None:
    """Return by what Override of a person a candidate was promoted; None where it was not."""
    target, decided = _rollout(turn.before.rollout).target, turn.case.decided
    if _stable(turn.row.stable).sha256 != target.sha256:
        return None
    if decided.serve is not None:
        return decided.serve
    once = decided.once
    return once if once is not None and once.action is Action.PROMOTE else None


def _is_held(turn: Turn) -> bool:
    return _rollout(turn.row.rollout).outcome is Outcome.PAUSED


def _goes_on(turn: Turn) -> bool:
    """Return whether more sessions are to see a candidate from now on."""
    before, now = _rollout(turn.before.rollout), _rollout(turn.row.rollout)
    return now.weights != before.weights


def _taken_back(turn: Turn, left: Turn) -> Turn:
    """Take a candidate back because another one was; what else is wanted comes after that."""
    row, rollout = turn.before, _rollout(turn.before.rollout)
    stable = _stable(row.stable)
    if turn is left:
        if _stable(turn.row.stable).sha256 == stable.sha256:
            return turn
        return replace(turn, decision=give_way(row, rollout, stable, turn.case))
    end, cause = _rollout(left.row.rollout), left.decision.why
    said = f"{rollout.target.version} was taken back with {_name(left)}: {cause.message}"
    why = Why(_reason(turn, cause), said)
    return replace(turn, decision=take_back(row, rollout, end.outcome, why, turn.case, end.by))


def _reason(turn: Turn, cause: Why) -> Reason:
    """Return why something is not served: what gates accept no more has not failed itself."""
    return cause.reason if _is_gate(turn) else Reason.HELD


def _promoted(turn: Turn, asked: Turn) -> Turn:
    override = _asked_for(asked)
    assert override is not None
    row, rollout = turn.before, _rollout(turn.before.rollout)
    sentence = f"{rollout.target.version} is served: {because(override)}"
    by = override.requested_by
    return replace(turn, decision=promote(row, rollout, sentence, turn.case, by))


def _held(turn: Turn, held: Turn) -> Turn:
    """Let a rollout stand where it is, because a person holds one of those it goes with."""
    before = _rollout(turn.before.rollout)
    if _is_held(turn) and not _goes_on(turn):
        return turn
    why = held.decision.why
    if turn is not held:
        why = Why(Reason.PAUSED, f"held with {_name(held)}: {why.message}")
    row = replace(turn.before, rollout=replace(before, outcome=Outcome.PAUSED))
    told = None if before.outcome is Outcome.PAUSED else why
    return replace(turn, decision=Decision(row, why, _room(turn), told))


def _waiting(turn: Turn, slow: Turn) -> Turn:
    """Let what could go on wait for what cannot yet; it has its pods for that step already."""
    cause = slow.decision.why
    why = Why(cause.reason, f"waits for {_name(slow)}: {cause.message}")
    decision = Decision(turn.before, why, _room(turn), again_at=slow.decision.again_at)
    return replace(turn, decision=decision)


def _room(turn: Turn) -> int:
    return turn.decision.room or turn.case.room(100)


def _afterwards(turns: Sequence[Turn]) -> Sequence[Turn]:
    """Let what was replaced go once it may for all of them, or come back with one of the gates."""
    moved = [turn for turn in turns if _is_gate(turn) and _moved(turn)]
    back = next((turn for turn in moved if _came_back(turn)), None)
    if back is not None:
        return [turn if turn in moved else _back(turn, back) for turn in turns]
    if moved:
        return [turn if turn in moved else _without_previous(turn) for turn in turns]
    if all(turn.row.previous is None for turn in turns):
        return turns
    times = [turn.decision.again_at for turn in turns if turn.decision.again_at is not None]
    again_at = min(times, default=None)
    return [_kept(turn, replace(turn.decision, again_at=again_at)) for turn in turns]


def _moved(turn: Turn) -> bool:
    """Return whether something else is served than what was promoted."""
    return _stable(turn.row.stable).sha256 != _stable(turn.before.stable).sha256


def _came_back(turn: Turn) -> bool:
    return _stable(turn.row.stable).sha256 == _stable(turn.before.previous).sha256


def _kept(turn: Turn, decision: Decision) -> Turn:
    if turn.row.previous is not None:
        return turn
    return replace(turn, decision=replace(decision, row=turn.before, told=None))


def _without_previous(turn: Turn) -> Turn:
    """Give up what was replaced: sessions that are on it move with the gate."""
    row = replace(turn.before, previous=None)
    return replace(turn, decision=replace(turn.decision, row=row))


def _back(turn: Turn, gate: Turn) -> Turn:
    """Serve what was replaced again, in the same epoch as the gate's."""
    row, rollout = turn.before, _rollout(turn.before.rollout)
    previous, stable = _stable(row.previous), _stable(row.stable)
    end = _rollout(gate.row.rollout)
    said = f"{previous.version} is served instead of {stable.version}, with {_name(gate)}"
    why = Why(_reason(turn, gate.decision.why), said)
    over = ended(rollout, Outcome.ROLLED_BACK, str(why), turn.case, end.by)
    new = replace(
        row,
        stable=previous,
        previous=None,
        revoked=tuple(s for s in revoke(row, stable) if s != previous.sha256),
        rollout=weighing(over, 0, turn.case),
    )
    return replace(turn, decision=Decision(new, why, told=why, again_at=turn.case.now))


def _name(turn: Turn) -> str:
    """Say whose turn it is: `e0`, or `Gate router`."""
    expert = turn.case.expert
    return expert.expert_id if expert.kind is Tried.EXPERT else f"Gate {expert.meta.name}"
