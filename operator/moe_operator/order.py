"""Which rollouts begin, of those that could, and what the others wait for.

The oldest change goes first: the creation of its revision tells, so that the order is the same
whoever looks. Rollouts whose verdicts would mix wait for each other, and none begins while a gate
only waits for those under way to end. Nothing that has begun is stopped here, and what a person
asks to be tried again waits for no turn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from moe_core.rows import Role
from moe_operator.fit import Accepted, on_trial
from moe_operator.gates import Gates
from moe_operator.override_spec import Action
from moe_operator.reason import Reason, Why, listed
from moe_operator.rollout import advance
from moe_operator.turn import Turn


def begin_in_order(turns: Sequence[Turn], limit: int, gates: Gates, first: str) -> tuple[Turn, ...]:
    """Let begin what may, `limit` under way at once; the others say what they wait for.

    `first` is a gate that goes before all of them, if there is one.
    """
    asking = sorted((turn for turn in turns if turn.decision.asks), key=_place)
    if not asking:
        return tuple(turns)
    running = [turn for turn in turns if on_trial(turn.row)]
    queue = _Queue(limit, [turn.row.expert_id for turn in running], Accepted.by(gates.rows))
    for turn in running:
        queue.put_ahead(turn)
    decided = {turn.row.expert_id: queue.take(turn, first) for turn in asking}
    return tuple(decided.get(turn.row.expert_id, turn) for turn in turns)


def _place(turn: Turn) -> tuple[bool, bool, str, str]:
    """Return what orders rollouts; a revision that is only about to be made is the newest."""
    created = turn.lineage.current.created
    return (not _retried(turn), created == "", created, turn.row.expert_id)


def _retried(turn: Turn) -> bool:
    once = turn.case.decided.once
    return once is not None and once.action is Action.RETRY


@dataclass(slots=True)
class _Queue:
    """The rollouts under way, and those that are older than the one whose turn it is."""

    limit: int
    running: list[str]
    accepted: Accepted
    last: str = ""  # the last one that waits for its turn
    ahead: dict[str, str] = field(default_factory=dict)  # expert id -> its backup
    backed: dict[str, str] = field(default_factory=dict)  # expert id -> whose backup it is
    dense: str = ""  # a dense expert that is ahead

    def put_ahead(self, turn: Turn) -> None:
        row = turn.row
        self.ahead[row.expert_id] = row.backup or ""
        if row.backup:
            self.backed.setdefault(row.backup, row.expert_id)
        if row.role is Role.DENSE:
            self.dense = self.dense or row.expert_id

    def take(self, turn: Turn, gate: str) -> Turn:
        """Return the turn as it is now: begun, or waiting; `gate` is one that goes first."""
        why = self._why(turn, gate)
        self.put_ahead(turn)
        if why is not None:
            return replace(turn, decision=replace(turn.decision, why=why))
        self.running.append(turn.row.expert_id)
        return replace(turn, decision=advance(turn.before, replace(turn.case, granted=True)))

    def _why(self, turn: Turn, gate: str) -> Why | None:
        """Return what keeps a rollout from beginning; None where nothing does."""
        expert_id, version = turn.row.expert_id, turn.case.wanted.version
        if misfit := self.accepted.refusal(expert_id, version):
            return Why(Reason.HELD, f"{version} is held: {misfit}")
        if gate:
            return Why(Reason.WOULD_CONFOUND, f"{version} waits until Gate {gate} has changed")
        other = next(self._confounds(turn), None)
        if other is not None:
            return Why(Reason.WOULD_CONFOUND, f"{version} waits for the rollout of {other}")
        if len(self.running) < self.limit or _retried(turn):
            return None
        running = listed(sorted(self.running))
        after = f", after {self.last}" if self.last else f"; under way: {running}"
        self.last = expert_id
        setting = f"spec.rollouts.maxConcurrent of the Mixture is {self.limit}"
        return Why(Reason.WAITING_FOR_TURN, f"{version} waits for its turn{after}; {setting}")

    def _confounds(self, turn: Turn) -> Iterator[str]:
        """Give what is ahead and answers for this expert when it fails, or the other way round.

        Failed rows of one would count as rows of the other.
        """
        row = turn.row
        if row.backup in self.ahead:
            yield f"{row.backup}, which is the backup of {row.expert_id}"
        if row.expert_id in self.backed:
            yield f"{self.backed[row.expert_id]}, whose backup {row.expert_id} is"
        if self.dense:
            yield f"{self.dense}, which stands in for every expert"
        if row.role is Role.DENSE and self.ahead:
            yield f"{next(iter(self.ahead))}, which {row.expert_id} stands in for"
