"""The rows of the routing table: what it says of one expert, and of one gate.

Both are tried out alike: their rows have the same fields for it. Data and its form in a
RoutingTable object; it decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self, TypeVar

from moe_core.document import Reader
from moe_core.policy import Policy, read_beside
from moe_core.rollout import Rollout, Version

T = TypeVar("T")


class Role(StrEnum):
    """What an expert is for."""

    ROUTED = "Routed"
    SHARED = "Shared"
    DENSE = "Dense"


class OnCold(StrEnum):
    """What becomes of rows for an expert that may sleep, and does."""

    DEGRADE = "Degrade"  # they climb the ladder
    WAIT = "Wait"  # they wait for it, as long as their time allows


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
    on_cold: OnCold = OnCold.DEGRADE

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
            on_cold=reader.enum("onCold", OnCold, default=OnCold.DEGRADE),
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
        if self.on_cold is not OnCold.DEGRADE:
            row["onCold"] = self.on_cold.value
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
    policy: Policy
    accepts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(
            version=reader.text("version"),
            sha256=reader.sha256("sha256"),
            uri=reader.text("uri"),
            experts=reader.texts("experts"),
            policy=read_beside(reader),
            accepts={item.text("id"): item.texts("versions") for item in reader.items("accepts")},
        )

    def to_dict(self) -> dict[str, Any]:
        variant: dict[str, Any] = {
            "version": self.version,
            "sha256": self.sha256,
            "uri": self.uri,
            "experts": list(self.experts),
            "topK": self.top_k,
        }
        if not self.policy.plain:
            variant["policy"] = self.policy.to_dict()
        if self.accepts:
            variant["accepts"] = [
                {"id": expert_id, "versions": list(versions)}
                for expert_id, versions in self.accepts.items()
            ]
        return variant

    @property
    def top_k(self) -> int:
        return self.policy.top_k


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
