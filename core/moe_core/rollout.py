"""What is on trial: versions, and the journal of a rollout that has begun or ended.

Data and its form in a RoutingTable object; it decides nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from moe_core.document import Reader


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
