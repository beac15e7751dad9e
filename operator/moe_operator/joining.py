"""Begins to try out gates together with the held versions of experts that only they accept.

The gates are in the dark already, and the versions are warm; from here on their rollouts have one
salt and the same weights, so that every session is on all of them or on none. Where that cannot be,
as where an expert serves nothing yet, all of them change at once: `pairing` sees to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from moe_core.rollout import Rollout
from moe_core.rows import ExpertRow, GateRow
from moe_operator.case import Decision
from moe_operator.fit import Accepted, accepts, draw, lacking, on_trial, refusal
from moe_operator.gate_turn import GateTurn, confounded
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
    """Let gates that wait for versions of experts begin with them, if they can serve.

    Those for which there is no way but to change at once get all pods that they want. `before` are
    the gates in service.
    """
    now, turns = {one.name: one for one in gates}, {t.row.expert_id: t for t in experts}
    apart: set[str] = set()
    first = ""
    for group in _groups(gates, turns):
        if not _can_try(group, turns):
            turns |= {e: _whole(turns[e]) for e in group.needed if turns[e].decision.held}
            continue
        apart |= group.names
        ready = _ready(group, turns)
        if ready is None:
            continue
        under_way = _under_way(group, now.values(), turns)
        if refused := _refused(group, turns, before):
            for one in group.gates:
                why = Why(Reason.HELD, f"{one.wanted.version} waits: {refused}")
                now[one.name] = _waiting(one, why)
        elif under_way:
            for one in group.gates:
                now[one.name] = _waiting(one, confounded(one.wanted.version, under_way))
            first = first or group.gates[0].name
        else:
            now |= {one.name: _in_the_dark(one, ready, group) for one in group.gates}
            turns |= {e: replace(turns[e], decision=d) for e, d in ready.experts.items()}
    return Joined(tuple(now.values()), tuple(turns.values()), frozenset(apart), first)


@dataclass(frozen=True, slots=True)
class _Group:
    """Gates that are tried out together, the oldest first, and the experts that they wait for."""

    gates: tuple[GateTurn, ...]
    needed: tuple[str, ...]

    @property
    def names(self) -> set[str]:
        return {one.name for one in self.gates}

    def others(self, one: GateTurn) -> list[str]:
        return [*self.needed, *(f"Gate {g.name}" for g in self.gates if g.name != one.name)]


def _groups(gates: Sequence[GateTurn], turns: Mapping[str, Turn]) -> Iterator[_Group]:
    """Give the gates that wait for experts; those that wait for one in common are one group.

    So are those that are tried out together already.
    """
    rows = {e: turn.row for e, turn in turns.items()}
    needed = {one.name: _needed(one, rows) for one in gates}
    ties = {one.name: {*needed[one.name], draw(one.turn.before)} - {None} for one in gates}
    left = [one for one in gates if needed[one.name]]
    while left:
        tied: set[object] = set(needed[left[0].name])
        while more := {t for own in ties.values() if own & tied for t in own} - tied:
            tied |= more
        left = [one for one in left if not ties[one.name] & tied]
        own = tuple(one for one in gates if ties[one.name] & tied)
        yield _Group(own, tuple(e for e in rows if e in tied))


def _needed(one: GateTurn, rows: Mapping[str, ExpertRow]) -> list[str]:
    """Return the experts of which a gate accepts only other versions than those that serve."""
    return lacking(one.row, one.wanted if one.on_trial else one.row.stable, rows)


def _can_try(group: _Group, turns: Mapping[str, Turn]) -> bool:
    """Return whether some sessions can see gates and experts while others see none of them."""

    def can_try(turn: Turn) -> bool:
        if not turn.decision.held:
            return turn.row.stable is not None  # another version is yet to be asked for
        return may_be_tried(turn.row, turn.case)

    tried = all(one.on_trial and one.turn.case.decided.serve is None for one in group.gates)
    return tried and all(can_try(turns[e]) for e in group.needed)


def _whole(turn: Turn) -> Turn:
    """Ask for all pods of a version that all sessions are to see at once."""
    return replace(turn, decision=hold(turn.before, replace(turn.case, awaited=100)))


@dataclass(frozen=True, slots=True)
class _Ready:
    """The rollout whose sessions all share, and the experts as they are beside the gates."""

    shared: Rollout
    experts: Mapping[str, Decision]


def _ready(group: _Group, turns: Mapping[str, Turn]) -> _Ready | None:
    """Return what would begin; None where something cannot serve yet.

    The gates are named first, in tables of their own: so there are as many, whoever waits for whom.
    """
    own = [row.rollout for one in group.gates if (row := _alone(one)).rollout is not None]
    dark = all(one.dark for one in group.gates) and not any(rollout.weights for rollout in own)
    if not dark or len(own) < len(group.gates):
        return None
    # What is tried out with one of them already stays where it is.
    salts = {drawn[0] for turn in turns.values() if (drawn := draw(turn.before)) is not None}
    shared = next((rollout for rollout in own if rollout.salt in salts), own[0])
    found: dict[str, Decision] = {}
    for expert_id in group.needed:
        turn = turns[expert_id]
        decision = tried_with(turn.before, turn.decision, turn.case, shared)
        if decision is None:
            return None
        found[expert_id] = decision
    return _Ready(shared, found)


def _alone(one: GateTurn) -> ExpertRow:
    """Return the gate's row as it is without its experts: it gets no weight before them."""
    rollout = one.turn.row.rollout
    return one.turn.before if rollout is not None and rollout.weights else one.turn.row


def _refused(group: _Group, turns: Mapping[str, Turn], before: Mapping[str, GateRow]) -> str:
    """Return which gate accepts a version neither now nor with this group; empty if none."""
    others = Accepted.by(row for name, row in before.items() if name not in group.names)
    for expert_id in group.needed:
        version = turns[expert_id].case.wanted.version
        for one in group.gates:
            if not accepts(one.wanted, expert_id, version):
                return refusal(one.name, one.wanted, expert_id, version)
        if said := others.refusal(expert_id, version):
            return said
    return ""


def _under_way(
    group: _Group, gates: Iterable[GateTurn], turns: Mapping[str, Turn]
) -> Sequence[str]:
    """Return the rollouts beside which a verdict would be about more than this one."""
    rows, own = {e: turn.row for e, turn in turns.items()}, {draw(g.row) for g in group.gates}
    trials = [e for e, row in rows.items() if on_trial(row) and draw(row) not in own]
    others = (g for g in gates if g.name not in group.names and g.on_trial and not g.awaits(rows))
    return [*trials, *(f"Gate {other.name}" for other in others)]


def _waiting(one: GateTurn, why: Why) -> GateTurn:
    return _decided(one, Decision(_alone(one), why, one.turn.decision.room))


def _in_the_dark(one: GateTurn, ready: _Ready, group: _Group) -> GateTurn:
    others = listed(group.others(one))
    sentence = f"{one.wanted.version} is on trial with {others}, without weight yet"
    told, why = Why(Reason.STARTED, sentence), Why(Reason.CANARY, sentence)
    row, again_at = _alone(one), one.turn.case.now
    assert row.rollout is not None
    began = replace(row.rollout, salt=ready.shared.salt, step_began=written(again_at))
    new = replace(row, rollout=began)
    return _decided(one, Decision(new, why, one.turn.decision.room, told, again_at))


def _decided(one: GateTurn, decision: Decision) -> GateTurn:
    return replace(one, turn=replace(one.turn, decision=decision))
