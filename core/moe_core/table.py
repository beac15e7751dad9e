"""The routing table: one immutable snapshot of versions, weights and fallbacks of a mixture.

It is the journal of every rollout and the only thing that routers obey. This module holds its
model and its form as the `spec` of a RoutingTable object; it decides nothing and writes nothing.
Every field is in `crds/routingtables.yaml` under the same name in camel case.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Self, TypeVar

from moe_core.document import InvalidDocument, Reader

T = TypeVar("T")


class Role(StrEnum):
    """What an expert is for."""

    ROUTED = "Routed"
    SHARED = "Shared"
    DENSE = "Dense"


class Outcome(StrEnum):
    """How far a rollout has come; all but the first two are ends."""

    PROGRESSING = "Progressing"
    PAUSED = "Paused"
    PROMOTED = "Promoted"
    ROLLED_BACK = "RolledBack"
    ABORTED = "Aborted"

    @property
    def ended(self) -> bool:
        return self not in (Outcome.PROGRESSING, Outcome.PAUSED)


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
class Version:
    """A name for exactly one artifact; `sha256` is the identity everywhere inside."""

    version: str
    sha256: str
    uri: str

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(reader.text("version"), reader.sha256("sha256"), reader.text("uri"))

    def to_dict(self) -> dict[str, Any]:
        return {"version": self.version, "sha256": self.sha256, "uri": self.uri}


@dataclass(frozen=True, slots=True)
class WeightSince:
    """Sessions that began at `epoch` or later see `percent` of the rollout's contender."""

    epoch: int
    percent: int


@dataclass(frozen=True, slots=True)
class Rollout:
    """The last rollout of an expert: in progress, or how it ended.

    `target` is the artifact on trial, kept after the end so that a revision that failed is not
    tried again. `weights` are in rising order of epoch; `step` counts from 0, the dark step.
    Routers copy `shadow_percent` of what stable answers to the candidate, only to count it.
    `evaluated` is what the golden set found, once the candidate passed it.
    `by` is the person who decided that it began or ended as it did; empty where nobody did.
    """

    revision: int
    target: Version
    step: int
    step_began: str  # RFC 3339
    outcome: Outcome
    reason: str
    salt: str
    weights: tuple[WeightSince, ...] = ()
    shadow_percent: int = 0
    evaluated: str = ""
    by: str = ""

    @classmethod
    def read(cls, reader: Reader) -> Self:
        weights = tuple(
            WeightSince(item.integer("epoch"), item.integer("percent", low=0, high=100))
            for item in reader.items("weights")
        )
        return cls(
            revision=reader.integer("revision"),
            target=Version.read(reader.child("target")),
            step=reader.integer("step"),
            step_began=reader.text("stepBegan"),
            outcome=reader.enum("outcome", Outcome),
            reason=reader.text("reason", default=""),
            salt=reader.text("salt"),
            weights=weights,
            shadow_percent=reader.integer("shadowPercent", low=0, high=100, default=0),
            evaluated=reader.text("evaluated", default=""),
            by=reader.text("by", default=""),
        )

    def to_dict(self) -> dict[str, Any]:
        rollout: dict[str, Any] = {
            "revision": self.revision,
            "target": self.target.to_dict(),
            "step": self.step,
            "stepBegan": self.step_began,
            "outcome": self.outcome.value,
            "reason": self.reason,
            "salt": self.salt,
            "weights": [{"epoch": w.epoch, "percent": w.percent} for w in self.weights],
        }
        if self.shadow_percent:
            rollout["shadowPercent"] = self.shadow_percent
        if self.evaluated:
            rollout["evaluated"] = self.evaluated
        if self.by:
            rollout["by"] = self.by
        return rollout

    @property
    def weight(self) -> int:
        """Percent of new sessions that see the contender."""
        return self.weights[-1].percent if self.weights else 0


@dataclass(frozen=True, slots=True)
class ExpertRow:
    """What the table says of one expert.

    `stable` is None until a first version is routable. While a rollout is in progress `candidate`
    is its target. After a promotion `previous` is the old stable for as long as its pods are
    kept, so that sessions pinned to it stay. A version in `revoked` gets no row any more.
    `idle_since` is when the gates ceased to list it (RFC 3339); empty where one does, or none did.
    """

    name: str
    expert_id: str
    role: Role
    layers: tuple[int, ...]
    backup: str | None = None
    stable: Version | None = None
    candidate: Version | None = None
    previous: Version | None = None
    revoked: tuple[str, ...] = ()
    rollout: Rollout | None = None
    idle_since: str = ""

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(
            name=reader.text("name"),
            expert_id=reader.text("expertId"),
            role=reader.enum("role", Role),
            layers=reader.integers("layers"),
            backup=reader.text("backup", default="") or None,
            stable=_optional(reader, "stable", Version.read),
            candidate=_optional(reader, "candidate", Version.read),
            previous=_optional(reader, "previous", Version.read),
            revoked=reader.texts("revoked"),
            rollout=_optional(reader, "rollout", Rollout.read),
            idle_since=reader.text("idleSince", default=""),
        )

    def to_dict(self) -> dict[str, Any]:
        row: dict[str, Any] = {
            "name": self.name,
            "expertId": self.expert_id,
            "role": self.role.value,
            "layers": list(self.layers),
        }
        if self.backup:
            row["backup"] = self.backup
        if self.stable is not None:
            row["stable"] = self.stable.to_dict()
        if self.idle_since:
            row["idleSince"] = self.idle_since
        return row | _trial(self)

    @property
    def named(self) -> tuple[Version, ...]:
        """The versions that may get rows, stable first."""
        return tuple(v for v in (self.stable, self.candidate, self.previous) if v is not None)


@dataclass(frozen=True, slots=True)
class GateVariant(Version):
    """A version of a gate: its artifact, and the experts that it knows, in the order of its rows.

    `accepts` names, by expert id, the versions that fit it; of other experts all do.
    """

    experts: tuple[str, ...]
    top_k: int
    accepts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(
            version=reader.text("version"),
            sha256=reader.sha256("sha256"),
            uri=reader.text("uri"),
            experts=reader.texts("experts"),
            top_k=reader.integer("topK", low=1),
            accepts={item.text("id"): item.texts("versions") for item in reader.items("accepts")},
        )

    def to_dict(self) -> dict[str, Any]:
        variant = {
            "version": self.version,
            "sha256": self.sha256,
            "uri": self.uri,
            "experts": list(self.experts),
            "topK": self.top_k,
        }
        if self.accepts:
            variant["accepts"] = [
                {"id": expert_id, "versions": list(versions)}
                for expert_id, versions in self.accepts.items()
            ]
        return variant


@dataclass(frozen=True, slots=True)
class GateRow:
    """What the table says of one gate; its fields are those of an expert's row.

    A session sees one variant of it, with the experts of that variant.
    """

    name: str
    layers: tuple[int, ...]
    stable: GateVariant
    candidate: GateVariant | None = None
    previous: GateVariant | None = None
    revoked: tuple[str, ...] = ()
    rollout: Rollout | None = None

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(
            name=reader.text("name"),
            layers=reader.integers("layers"),
            stable=GateVariant.read(reader.child("stable")),
            candidate=_optional(reader, "candidate", GateVariant.read),
            previous=_optional(reader, "previous", GateVariant.read),
            revoked=reader.texts("revoked"),
            rollout=_optional(reader, "rollout", Rollout.read),
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "layers": list(self.layers),
            "stable": self.stable.to_dict(),
            **_trial(self),
        }

    @property
    def named(self) -> tuple[GateVariant, ...]:
        """The variants that may choose for rows, stable first."""
        return tuple(v for v in (self.stable, self.candidate, self.previous) if v is not None)

    @property
    def serving(self) -> tuple[GateVariant, ...]:
        """Those of them that sessions may see: not a candidate that never had weight."""
        seen = self.rollout is not None and bool(self.rollout.weights)
        return tuple(v for v in self.named if v is not self.candidate or seen)

    @property
    def experts(self) -> tuple[str, ...]:
        """Every expert that a variant knows, each once."""
        return tuple(dict.fromkeys(e for variant in self.named for e in variant.experts))


def _trial(row: ExpertRow | GateRow) -> dict[str, Any]:
    """Return what a row says beside its stable version."""
    trial: dict[str, Any] = {
        name: version.to_dict()
        for name, version in (("candidate", row.candidate), ("previous", row.previous))
        if version is not None
    }
    if row.revoked:
        trial["revoked"] = list(row.revoked)
    if row.rollout is not None:
        trial["rollout"] = row.rollout.to_dict()
    return trial


def _optional(reader: Reader, name: str, read: Callable[[Reader], T]) -> T | None:
    child = reader.optional_child(name)
    return None if child is None else read(child)


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
    def from_object(cls, body: dict[str, Any]) -> Self:
        """Read a RoutingTable object. Raises InvalidDocument, which names the field."""
        reader = Reader(body.get("spec"), "spec")
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
