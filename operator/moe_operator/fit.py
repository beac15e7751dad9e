"""Which versions of experts fit the gates: what gates accept, and the sentence where they do not.

Answers questions about rows of gates and experts; decides nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Self

from moe_core.rollout import Version, WeightSince
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

    @classmethod
    def around(cls, row: ExpertRow, gates: Iterable[GateRow]) -> Self:
        """Return the same for an expert; gates that it is tried out with bar no way back.

        Once all are promoted, what the new variants accept counts, and no longer the old ones'.
        """
        seen = ((gate, together(gate, row)) for gate in gates)
        own = (
            replace(g, previous=None) if with_it else g
            for g, with_it in seen
            if not (with_it and g.candidate is not None)
        )
        return cls.by(own)

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
    for expert_id in dict.fromkeys(e for variant in gate.named for e in variant.accepts):
        row = experts.get(expert_id)
        for variant, version in () if row is None else beside(gate, row):
            if not accepts(variant, expert_id, version.version):
                yield Misfit(gate, variant, expert_id, version.version)


def lacking(gate: GateRow, variant: GateVariant, experts: Mapping[str, ExpertRow]) -> list[str]:
    """Return the experts that serve, or try out, what a variant of this gate does not accept.

    Those that are tried out with it are none of them.
    """
    return [
        expert_id
        for expert_id in variant.accepts
        if (row := experts.get(expert_id)) is not None
        and not together(gate, row)
        and any(not accepts(variant, expert_id, version.version) for version in may_serve(row))
    ]


def beside(gate: GateRow, row: ExpertRow) -> Iterator[tuple[GateVariant, Version]]:
    """Give every pair of a variant and a version that some session may be on."""
    if not together(gate, row):
        yield from product(gate.serving, may_serve(row))
        return
    assert row.stable is not None
    yield gate.stable, row.stable
    if gate.candidate is not None and row.candidate is not None:
        yield gate.candidate, row.candidate
    if gate.previous is not None and row.previous is not None:
        yield gate.previous, row.previous


# What places the sessions of a row in its rollout: salt, weights, and whether it is on trial.
Draw = tuple[str, tuple[WeightSince, ...], bool]


def draw(row: ExpertRow | GateRow) -> Draw | None:
    """Return what places the sessions of a row with two versions; None where it has no two."""
    if row.rollout is None or (row.candidate is None and row.previous is None):
        return None
    return row.rollout.salt, row.rollout.weights, row.candidate is not None


def together(one: ExpertRow | GateRow, other: ExpertRow | GateRow) -> bool:
    """Return whether each session is on the new versions of both, or on the old ones of both.

    So it is where one draw decides for both: their rollouts have one salt and the same weights.
    """
    drawn = draw(one)
    return drawn is not None and drawn == draw(other)


def on_trial(row: ExpertRow | GateRow) -> bool:
    """Return whether a rollout is under way; a very first version is not on trial."""
    return row.stable is not None and row.rollout is not None and not row.rollout.outcome.ended


def may_serve(row: ExpertRow) -> tuple[Version, ...]:
    """Return the versions that get rows, and the one that has begun to be tried out."""
    trial = (row.rollout.target,) if row.rollout is not None and on_trial(row) else ()
    return (*row.named, *trial)
