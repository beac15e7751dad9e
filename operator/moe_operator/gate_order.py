"""Which gate begins its rollout, of those that could, and what the others wait for.

One gate of a mixture is on trial at a time, and none while an expert is: verdicts would be about
both. Those that wait for versions of experts are in the shadow beside any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from moe_core.rows import ExpertRow
from moe_operator.case import Decision
from moe_operator.fit import on_trial
from moe_operator.gate_turn import GateTurn, confounded
from moe_operator.members import lacks
from moe_operator.reach import Reach
from moe_operator.rollout import advance


def begin_one(
    turns: tuple[GateTurn, ...],
    experts: Mapping[str, ExpertRow],
    possible: Mapping[str, ExpertRow],
    reach: Reach,
) -> tuple[GateTurn, ...]:
    """Let one gate begin its rollout where nothing else is on trial; the others say why not.

    `experts` are as they are to be alone, `possible` as they could be with a gate. One that waits
    for versions of experts keeps nobody waiting.
    """
    trials = [expert_id for expert_id, row in experts.items() if on_trial(row)]
    tried = (turn for turn in turns if turn.on_trial and not turn.awaits(experts))
    under_way = [*trials, *(f"Gate {turn.name}" for turn in tried)]
    asking = sorted((turn for turn in turns if turn.turn.decision.asks), key=_place)
    decided: dict[str, Decision] = {}
    for one in asking:
        case, decision = one.turn.case, one.turn.decision
        why = lacks(one.wanted, one.turn.row.layers, one.before, possible, reach)
        if why is not None:
            decided[one.name] = replace(decision, why=why)
        elif under_way:
            why = confounded(case.wanted.version, under_way)
            decided[one.name] = replace(decision, why=why)
        else:
            decided[one.name] = advance(one.turn.before, replace(case, granted=True))
            if not one.awaits(experts):
                under_way = [f"Gate {one.name}"]
    return tuple(
        replace(one, turn=replace(one.turn, decision=decided.get(one.name, one.turn.decision)))
        for one in turns
    )


def _place(one: GateTurn) -> tuple[bool, str, str]:
    """Return what orders rollouts; a revision that is only about to be made is the newest."""
    created = one.turn.lineage.current.created
    return (created == "", created, one.name)
