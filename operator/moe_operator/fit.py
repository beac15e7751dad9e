"""Which versions of experts fit the gates: what gates accept, and the sentence where they do not.

Answers questions about rows of gates and experts; decides nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Self

from moe_core.rollout import Version
from moe_core.rows import ExpertRow, GateRow, GateVariant


@dataclass(frozen=True, slots=True)
class Accepted:
    """By expert id, the variants of gates that accept only some versions of it."""

    variants: Mapping[str, tuple[tuple[str, GateVariant], ...]] = field(default_factory=dict)

    @classmethod
    def by(cls, gates: Iterable[GateRow]) -> Self:
        choosy: defaultdict[str, tuple[tuple[str, GateVariant], ...]] = defaultdict(tuple)
        for gate in gates:
            for variant in gate.serving:
                for expert_id in variant.accepts:
                    choosy[expert_id] += ((gate.name, variant),)
        return cls(dict(choosy))

    def refusal(self, expert_id: str, version: str) -> str:
        """Return which gate does not accept a version, and what it accepts; empty if all do."""
        for gate, variant in self.variants.get(expert_id, ()):
            if not accepts(variant, expert_id, version):
                return refusal(gate, variant, expert_id, version)
        return ""


def accepts(variant: GateVariant, expert_id: str, version: str) -> bool:
    return version in variant.accepts.get(expert_id, (version,))


def refusal(gate: str, variant: GateVariant, expert_id: str, version: str) -> str:
    names = ", ".join(variant.accepts[expert_id])
    return f"{variant.version} of Gate {gate} accepts {names} of {expert_id}, not {version}"


@dataclass(frozen=True, slots=True)
class Misfit:
    """A version that may get rows, and a variant of a gate beside it that does not accept it."""

    gate: GateRow
    variant: GateVariant
    expert_id: str
    version: str

    @property
    def sentence(self) -> str:
        return refusal(self.gate.name, self.variant, self.expert_id, self.version)


def misfits(gate: GateRow, experts: Mapping[str, ExpertRow]) -> Iterator[Misfit]:
    """Give what may get rows beside a variant of this gate that does not accept it."""
    for variant in gate.serving:
        for expert_id in variant.accepts:
            row = experts.get(expert_id)
            for version in () if row is None else may_serve(row):
                if not accepts(variant, expert_id, version.version):
                    yield Misfit(gate, variant, expert_id, version.version)


def on_trial(row: ExpertRow | GateRow) -> bool:
    """Return whether a rollout is under way; a very first version is not on trial."""
    return row.stable is not None and row.rollout is not None and not row.rollout.outcome.ended


def may_serve(row: ExpertRow) -> tuple[Version, ...]:
    """Return the versions that get rows, and the one that has begun to be tried out."""
    trial = (row.rollout.target,) if row.rollout is not None and on_trial(row) else ()
    return (*row.named, *trial)
