"""Which gates and held experts change together, so that every pair in the table fits.

The greatest change that fits: all gates that could be served and all held versions that could
serve are put together, and what does not fit goes back to what it was, until nothing is left to
object to. So gate and experts change in one epoch in either order of applying, or not at all. A
gate that would change under a rollout waits for it to end.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass

from moe_core.rows import ExpertRow, GateRow
from moe_operator.fit import Accepted, Misfit, accepts, may_serve, misfits, together
from moe_operator.gate_turn import GateTurn, confounded
from moe_operator.gates import Gates, Surroundings, plan_gates
from moe_operator.reason import Reason, Why
from moe_operator.restore import Restored


@dataclass(frozen=True, slots=True)
class Pairs:
    """The gates as they are to be, and the held experts that are served with them, by id.

    `stayed` are experts that stay as they were, because the gate that they go with does.
    """

    gates: Gates
    joined: Mapping[str, ExpertRow]
    stayed: Mapping[str, ExpertRow]


@dataclass(frozen=True, slots=True)
class Experts:
    """The experts by id: as they are to be alone, and as they could be with a gate.

    `before` is as they were, `wanted` are the versions that they are to end at, `fallen` says why
    one is not tried again, `trials` are those that are under rollout, but for those with a gate.
    """

    before: Mapping[str, ExpertRow]

    rows: Mapping[str, ExpertRow]
    joinable: Mapping[str, ExpertRow]
    wanted: Mapping[str, str]
    fallen: Mapping[str, str]
    trials: Sequence[str]

    @property
    def possible(self) -> Mapping[str, ExpertRow]:
        return {**self.rows, **self.joinable}


def pair(
    around: Surroundings,
    turns: Sequence[GateTurn],
    experts: Experts,
    restored: Restored,
    apart: Container[str],
) -> Pairs:
    """Return which gates change, and which held experts with them; `apart` never change at once.

    A gate that a person brings back waits for no rollout.
    """
    targets = ((turn, turn.row if turn.name in apart else _target(turn, experts)) for turn in turns)
    search = _Search(around, tuple(targets), experts)
    found = search.run({})
    changed = [
        row
        for row in found.gates.rows
        if row.name not in restored.gates and _confounds(row, around.before, found.joined)
    ]
    if not changed or not experts.trials:
        return found
    return search.run({row.name: confounded(row.stable.version, experts.trials) for row in changed})


def _target(turn: GateTurn, experts: Experts) -> GateRow:
    """Return the row that a gate is to have: on trial, or whole where it only fits with others.

    A candidate that does not accept what is served cannot be tried out on some sessions: it is
    served to all of them at once, with the versions of experts that it accepts.
    """
    row, whole = turn.row, turn.whole
    if turn.on_trial and len(row.serving) == 1 and _awaited(turn, experts):
        return turn.at_once(turn.turn.row)
    alone = any(True for _ in misfits(row, experts.rows))
    return whole if whole is not None and alone else row


def _awaited(turn: GateTurn, experts: Experts) -> bool:
    """Return whether an expert that the gate in service lists has nothing to serve without it.

    Its first version is held until a gate accepts it; rows for it have nobody until then.
    """
    listed = turn.before.stable.experts if turn.before is not None else ()
    return any(e in experts.joinable and experts.rows[e].stable is None for e in listed)


def _confounds(
    row: GateRow, before: Mapping[str, GateRow], joined: Mapping[str, ExpertRow]
) -> bool:
    """Return whether sessions get other answers by a change; the first gate of layers has none.

    What is only given up counts for nothing.
    """
    old = before.get(row.name)
    if old is None or old == row:
        return False
    known = {(v.sha256, v.experts, v.policy) for v in old.serving}
    fresh = any((v.sha256, v.experts, v.policy) not in known for v in row.serving)
    return fresh or old.layers != row.layers or bool(row.stable.accepts.keys() & joined.keys())


@dataclass(frozen=True, slots=True)
class _Search:
    around: Surroundings
    targets: Sequence[tuple[GateTurn, GateRow]]
    experts: Experts

    def run(self, waits: Mapping[str, Why]) -> Pairs:
        """Take back what does not fit, until all does; `waits` are gates that stay, by name."""
        stay, joined, before = dict(waits), dict(self.experts.joinable), self.around.before
        stayed: dict[str, ExpertRow] = {}
        while True:
            rows = {**self.experts.rows, **joined, **stayed}
            gates = plan_gates(self.around, self.targets, rows, stay)
            back, kept = set(self._unneeded(gates, joined)), len(stay) + len(stayed)
            stayed |= self._left_behind(gates, rows)
            for wrong in (found for gate in gates.rows for found in misfits(gate, rows)):
                old = before.get(wrong.gate.name)
                if wrong.expert_id in joined and old is not None and _refused_by(old, wrong):
                    back.add(wrong.expert_id)
                elif wrong.gate != old:
                    stay[wrong.gate.name] = self._why(wrong)
            if not back and len(stay) + len(stayed) == kept:
                return Pairs(gates, joined, stayed)
            joined = {e: row for e, row in joined.items() if e not in back}

    def _left_behind(
        self, gates: Gates, rows: Mapping[str, ExpertRow]
    ) -> Iterator[tuple[str, ExpertRow]]:
        """Give the experts that went on without the gate that they are tried out with."""
        for gate in gates.rows:
            if gate == self.around.before.get(gate.name):
                for expert_id, row in self.experts.before.items():
                    if together(gate, row) and not together(gate, rows[expert_id]):
                        yield expert_id, row

    def _unneeded(self, gates: Gates, joined: Mapping[str, ExpertRow]) -> Iterator[str]:
        """Give what fits as it is, too: its rollout needs no gate."""
        accepted = Accepted.by(gates.rows)
        for expert_id in joined:
            row = self.experts.rows[expert_id]
            refused = [v for v in may_serve(row) if accepted.refusal(expert_id, v.version)]
            if row.stable is not None and not refused:
                yield expert_id

    def _why(self, wrong: Misfit) -> Why:
        wanted = self.experts.wanted.get(wrong.expert_id, wrong.version)
        if not accepts(wrong.variant, wrong.expert_id, wanted):
            asked = f"{wrong.expert_id} is to serve {wanted}"
            return Why(Reason.HELD, f"{wrong.sentence}; {asked}")
        fallen = self.experts.fallen.get(wrong.expert_id, "")
        if fallen:
            return Why(Reason.HELD, f"{wrong.sentence}; {wanted} is not tried again: {fallen}")
        return Why(Reason.EXPERTS_NOT_READY, f"{wrong.sentence}; {wanted} is on its way")


def _refused_by(gate: GateRow, wrong: Misfit) -> bool:
    return any(not accepts(v, wrong.expert_id, wrong.version) for v in gate.serving)
