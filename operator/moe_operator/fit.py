"""Which versions of experts fit the gates: what gates accept, and the sentence where they do not.

Answers questions about rows of gates and experts; decides nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Self

from moe_core.table import ExpertRow, GateRow, Version


@dataclass(frozen=True, slots=True)
class Accepted:
    """By expert id, the gates that accept only some versions of it."""

    gates: Mapping[str, tuple[GateRow, ...]] = field(default_factory=dict)

    @classmethod
    def by(cls, gates: Iterable[GateRow]) -> Self:
        choosy: defaultdict[str, tuple[GateRow, ...]] = defaultdict(tuple)
        for gate in gates:
            for expert_id in gate.accepts:
                choosy[expert_id] += (gate,)
        return cls(dict(choosy))

    def refusal(self, expert_id: str, version: str) -> str:
        """Return which gate does not accept a version, and what it accepts; empty if all do."""
        for gate in self.gates.get(expert_id, ()):
            if version not in gate.accepts[expert_id]:
                return refusal(gate, expert_id, version)
        return ""


def refusal(gate: GateRow, expert_id: str, version: str) -> str:
    names = ", ".join(gate.accepts[expert_id])
    accepts = f"{gate.stable.version} of Gate {gate.name} accepts {names} of {expert_id}"
    return f"{accepts}, not {version}"


def misfits(gate: GateRow, experts: Mapping[str, ExpertRow]) -> Iterator[tuple[str, str]]:
    """Give the (expert id, version) that may get rows beside a gate that does not accept them."""
    for expert_id, names in gate.accepts.items():
        row = experts.get(expert_id)
        for version in () if row is None else may_serve(row):
            if version.version not in names:
                yield expert_id, version.version


def on_trial(row: ExpertRow) -> bool:
    """Return whether a rollout is under way; a very first version is not on trial."""
    return row.stable is not None and row.rollout is not None and not row.rollout.outcome.ended


def may_serve(row: ExpertRow) -> tuple[Version, ...]:
    """Return the versions that get rows, and the one that has begun to be tried out."""
    trial = (row.rollout.target,) if row.rollout is not None and on_trial(row) else ()
    return (*row.named, *trial)
