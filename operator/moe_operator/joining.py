"""Begins to try out a gate together with the held versions of experts that only it accepts.

The gate is in the dark already, and the versions are warm; from here on their rollouts have one
salt and the same weights, so that every session is on both or on neither. Where that cannot be, as
where an expert serves nothing yet, all of them change at once: `pairing` sees to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from moe_core.rows import ExpertRow, GateRow
from moe_operator.case import Decision
from moe_operator.fit import Accepted, lacking, on_trial, together
from moe_operator.gate_turns import GateTurn
from moe_operator.held import hold, may_be_tried, tried_with
from moe_operator.reason import Reason, Why, listed, written
from moe_operator.turn import Turn


@dataclass(frozen=True, slots=True)
class Joined:
    """The turns of gates and experts, `apart` being gates that never change at once.

    `first` is a gate that could begin with its experts if no other rollout were under way.
    """

    gates: tuple[GateTurn, ...]
    experts: tuple[Turn, ...]
    apart: frozenset[str]
    first: str


def join(
    gates: Sequence[GateTurn], experts: Sequence[Turn], before: Mapping[str, GateRow]
) -> Joined:
    """Let each gate that waits for versions of experts begin with them, if they can serve.

    Those for which there is no way but to change at once get all pods that they want. `before` are
    the gates in service.
    """
    now, turns = {one.name: one for one in gates}, {t.row.expert_id: t for t in experts}
    apart: set[str] = set()
    first = ""
    for one in gates:
        needed = _needed(one, turns)
        if not needed:
            continue
        if not _can_try(one, needed, turns, before):
            turns |= {e: _whole(turns[e]) for e in needed if turns[e].decision.held}
            continue
        apart.add(one.name)
        ready = _ready(one, needed, turns)
        if ready is None:
            continue
        under_way = list(_under_way(one, tuple(now.values()), turns))
        if under_way:
            now[one.name], first = _waiting(one, under_way), first or one.name
            continue
        now[one.name] = _in_the_dark(one, ready, needed)
        turns |= {e: replace(turns[e], decision=d) for e, d in ready.experts.items()}
    return Joined(tuple(now.values()), tuple(turns.values()), frozenset(apart), first)


def _needed(one: GateTurn, turns: Mapping[str, Turn]) -> list[str]:
    """Return the experts of which a gate accepts only other versions than those that serve."""
    variant = one.wanted if one.on_trial else one.row.stable
    return lacking(one.row, variant, {e: turn.row for e, turn in turns.items()})


def _can_try(
    one: GateTurn, needed: Sequence[str], turns: Mapping[str, Turn], before: Mapping[str, GateRow]
) -> bool:
    """Return whether some sessions can see a gate and its experts while others see neither."""
    others = Accepted.by(row for name, row in before.items() if name != one.name)

    def can_try(turn: Turn) -> bool:
        if not turn.decision.held:
            return turn.row.stable is not None  # another version is yet to be asked for
        free = not others.refusal(turn.row.expert_id, turn.case.wanted.version)
        return free and may_be_tried(turn.row, turn.case)

    asked = one.turn.case.decided.serve is not None
    return one.on_trial and not asked and all(can_try(turns[e]) for e in needed)


def _whole(turn: Turn) -> Turn:
    """Ask for all pods of a version that all sessions are to see at once."""
    return replace(turn, decision=hold(turn.before, replace(turn.case, awaited=100)))


@dataclass(frozen=True, slots=True)
class _Ready:
    """The gate's row in the dark, and its experts as they are beside it."""

    gate: ExpertRow
    experts: Mapping[str, Decision]


def _ready(one: GateTurn, needed: Sequence[str], turns: Mapping[str, Turn]) -> _Ready | None:
    """Return what would begin; None where something cannot serve yet.

    The gate is named first, in a table of its own: so there are as many, whoever waits for whom.
    """
    row = _alone(one)
    if not one.dark or row.rollout is None or row.rollout.weights:
        return None
    found: dict[str, Decision] = {}
    for expert_id in needed:
        turn = turns[expert_id]
        accepted = turn.case.wanted.version in one.wanted.accepts[expert_id]
        decision = tried_with(turn.before, turn.decision, turn.case, row.rollout)
        if not accepted or decision is None:
            return None
        found[expert_id] = decision
    began = replace(row.rollout, step_began=written(one.turn.case.now))
    return _Ready(replace(row, rollout=began), found)


def _alone(one: GateTurn) -> ExpertRow:
    """Return the gate's row as it is without its experts: it gets no weight before them."""
    rollout = one.turn.row.rollout
    return one.turn.before if rollout is not None and rollout.weights else one.turn.row


def _under_way(
    one: GateTurn, gates: Sequence[GateTurn], turns: Mapping[str, Turn]
) -> Sequence[str]:
    """Return the rollouts beside which a verdict would be about more than this one."""
    rows = {e: turn.row for e, turn in turns.items()}
    trials = [e for e, row in rows.items() if on_trial(row) and not together(one.row, row)]
    others = (g for g in gates if g.name != one.name and g.on_trial and not g.awaits(rows))
    return [*trials, *(f"Gate {other.name}" for other in others)]


def _waiting(one: GateTurn, under_way: Sequence[str]) -> GateTurn:
    why = Why(
        Reason.WOULD_CONFOUND,
        f"{one.wanted.version} waits for the rollouts of {listed(under_way)} to end: "
        "their verdicts would be about two gates",
    )
    return _decided(one, Decision(_alone(one), why, one.turn.decision.room))


def _in_the_dark(one: GateTurn, ready: _Ready, needed: Sequence[str]) -> GateTurn:
    sentence = f"{one.wanted.version} is on trial with {listed(needed)}, without weight yet"
    told, why = Why(Reason.STARTED, sentence), Why(Reason.CANARY, sentence)
    again_at = one.turn.case.now
    return _decided(one, Decision(ready.gate, why, one.turn.decision.room, told, again_at))


def _decided(one: GateTurn, decision: Decision) -> GateTurn:
    return replace(one, turn=replace(one.turn, decision=decision))
