"""The routing table: one immutable snapshot of versions, weights and fallbacks of a mixture.

It is the journal of every rollout and the only thing that routers obey. This module holds its
model and its form as the `spec` of a RoutingTable object; it decides nothing and writes nothing.
Every field is in `crds/routingtables.yaml` under the same name in camel case.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Self

from moe_core.document import InvalidDocument, Reader
from moe_core.rows import ExpertRow, GateRow


class Rung(StrEnum):
    """What answers for an expert that is out, best first; REPLICA and STABLE are not degraded."""

    REPLICA = "Replica"
    STABLE = "Stable"
    BACKUP = "Backup"
    DENSE = "Dense"
    RENORMALISE = "Renormalise"
    RESIDUAL = "Residual"


LADDER = tuple(Rung)


@dataclass(frozen=True, slots=True)
class Failover:
    """The rungs in the order to try them, and how much of the gate mass may be degraded."""

    ladder: tuple[Rung, ...] = LADDER
    max_degraded_percent: int = 50

    @classmethod
    def read(cls, reader: Reader) -> Self:
        names = reader.texts("ladder")
        try:
            ladder = tuple(Rung(name) for name in names)
        except ValueError as error:
            rungs = ", ".join(LADDER)
            raise InvalidDocument(f"{reader.path}.ladder: {error}; rungs are {rungs}") from None
        percent = reader.integer("maxDegradedPercent", low=0, high=100)
        return cls(ladder, percent)

    def to_dict(self) -> dict[str, Any]:
        return {
            "ladder": [rung.value for rung in self.ladder],
            "maxDegradedPercent": self.max_degraded_percent,
        }


@dataclass(frozen=True, slots=True)
class Table:
    """One epoch of a mixture. `uid` is that of the object it was read from, empty before."""

    mixture: str
    uid: str
    epoch: int
    hidden_size: int
    layers: int
    dtype: str
    trunk_sha256: str
    failover: Failover
    gates: tuple[GateRow, ...] = ()
    experts: tuple[ExpertRow, ...] = ()

    @classmethod
    def from_object(cls, body: Mapping[str, Any]) -> Self:
        """Read a RoutingTable object. Raises InvalidDocument, which names the field."""
        reader = Reader(body.get("spec"), "spec")
        if "parts" in reader.value:
            raise InvalidDocument("spec.parts names parts; their content must be put in its place")
        return cls(
            mixture=reader.text("mixture"),
            uid=str(body.get("metadata", {}).get("uid", "")),
            epoch=reader.integer("epoch"),
            hidden_size=reader.integer("hiddenSize", low=1),
            layers=reader.integer("layers", low=1),
            dtype=reader.text("dtype"),
            trunk_sha256=reader.text("trunkSha256", default=""),
            failover=Failover.read(reader.child("failover")),
            gates=tuple(GateRow.read(item) for item in reader.items("gates")),
            experts=tuple(ExpertRow.read(item) for item in reader.items("experts")),
        )

    def to_spec(self) -> dict[str, Any]:
        """Return the `spec` of the RoutingTable object; `from_object` is its inverse."""
        return {
            "mixture": self.mixture,
            "epoch": self.epoch,
            "hiddenSize": self.hidden_size,
            "layers": self.layers,
            "dtype": self.dtype,
            "trunkSha256": self.trunk_sha256,
            "failover": self.failover.to_dict(),
            "gates": [gate.to_dict() for gate in self.gates],
            "experts": [expert.to_dict() for expert in self.experts],
        }

    def expert(self, expert_id: str) -> ExpertRow | None:
        return next((row for row in self.experts if row.expert_id == expert_id), None)

    def with_expert(self, row: ExpertRow) -> Self:
        """Return this table with the row of that expert put in or replaced; the epoch stays."""
        others = [e for e in self.experts if e.expert_id != row.expert_id]
        experts = sorted([*others, row], key=lambda e: e.expert_id)
        return replace(self, experts=tuple(experts))
