"""A routing table with the look-ups that a request needs, built once when a table arrives.

Immutable: a request keeps the view that it started with to its end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from moe_core.rollout import Outcome, Version
from moe_core.rows import ExpertRow, GateRow, Role
from moe_core.table import Table


@dataclass(frozen=True, slots=True)
class View:
    """One table, by expert id and by layer. `dense` has the stand-in of each layer with one.

    `rolling` are the experts whose rollout can move a session, or took a version from one;
    `tried` those with a candidate beside a stable version, `shadowed` those of them that shadow
    rows are wanted for. `rolling_gates` are the gates with a rollout, `tried_gates` those with a
    candidate, `shadowed_layers` those in which a candidate of the gate is to look at live rows.
    """

    table: Table
    experts: Mapping[str, ExpertRow]
    gates: Mapping[int, GateRow]
    dense: Mapping[int, ExpertRow]
    rolling: tuple[ExpertRow, ...]
    tried: tuple[ExpertRow, ...]
    shadowed: tuple[ExpertRow, ...]
    rolling_gates: tuple[GateRow, ...]
    tried_gates: tuple[GateRow, ...]
    shadowed_layers: frozenset[int]

    @classmethod
    def of(cls, table: Table) -> Self:
        every = tuple(range(table.layers))
        gates = {layer: gate for gate in table.gates for layer in gate.layers or every}
        dense = {
            layer: row
            for row in table.experts
            if row.role is Role.DENSE and row.stable is not None
            for layer in row.layers or every
        }
        rolling = tuple(row for row in table.experts if _matters(row))
        tried = tuple(row for row in rolling if row.candidate is not None and row.stable)
        rolling_gates = tuple(gate for gate in table.gates if gate.rollout is not None)
        return cls(
            table=table,
            experts={row.expert_id: row for row in table.experts},
            gates=gates,
            dense=dense,
            rolling=rolling,
            tried=tried,
            shadowed=tuple(row for row in tried if row.rollout and row.rollout.shadow_percent),
            rolling_gates=rolling_gates,
            tried_gates=tuple(gate for gate in rolling_gates if gate.candidate is not None),
            shadowed_layers=frozenset(layer for layer, gate in gates.items() if _shadowed(gate)),
        )

    def stable(self, expert_id: str) -> Version | None:
        row = self.experts.get(expert_id)
        return None if row is None else row.stable

    def revokes(self, expert_id: str, sha256: str) -> bool:
        """Whether this table forbids rows to a version of an expert."""
        row = self.experts.get(expert_id)
        return row is not None and sha256 in row.revoked

    def revokes_gate(self, layer: int, sha256: str) -> bool:
        """Whether this table forbids a version of the layer's gate to choose."""
        row = self.gates.get(layer)
        return row is not None and sha256 in row.revoked


def _shadowed(gate: GateRow) -> bool:
    rollout = gate.rollout
    return gate.candidate is not None and rollout is not None and rollout.shadow_percent > 0


def _matters(row: ExpertRow) -> bool:
    """Whether some session may not be on this expert's stable version, or lost the one it had.

    That a first version began to serve concerns nobody: most experts are so, in a large mixture.
    """
    rollout = row.rollout
    if rollout is None:
        return False
    if row.candidate is not None or row.previous is not None:
        return True
    if not rollout.outcome.ended or row.stable is None:
        return False
    if rollout.outcome is Outcome.PROMOTED:
        return len(rollout.weights) > 1 and row.stable == rollout.target
    return bool(rollout.weights) and rollout.target.sha256 in row.revoked
