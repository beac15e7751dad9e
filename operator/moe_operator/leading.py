"""Which gate leads a rollout that several share: the oldest, and its steps are those of all.

Reads the table and the specs of gates; decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from moe_operator.fit import Draw, draw
from moe_operator.spec import ExpertSpec
from moe_operator.strategy import Step
from moe_operator.world import World


@dataclass(frozen=True, slots=True)
class Lead:
    """A gate that is tried out, be it alone; without steps where its spec cannot be read."""

    name: str
    steps: tuple[Step, ...]

    def over(self, tried: ExpertSpec) -> ExpertSpec:
        """Return what is tried out, with the steps of the gate that leads it."""
        steps = self.steps or tried.rollout.steps
        return replace(tried, rollout=replace(tried.rollout, steps=steps))


def leads(world: World) -> Mapping[Draw | None, Lead]:
    """Return who leads, by what places the sessions; nobody leads a row that has one version."""
    rows = {row.name: row for row in world.table.table.gates} if world.table else {}
    gates = sorted(world.gates, key=lambda gate: gate.meta.age_key)
    steps = {gate.meta.name: gate.rollout.steps for gate in gates}
    found: dict[Draw | None, Lead] = {}
    for name in [*(n for n in steps if n in rows), *(n for n in rows if n not in steps)]:
        drawn = draw(rows[name])
        if drawn is not None:
            found.setdefault(drawn, Lead(name, steps.get(name, ())))
    return found
