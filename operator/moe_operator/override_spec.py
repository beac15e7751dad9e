"""What people decided: an Override, read once from its object.

Reads and nothing else. A field that is not what it must be raises InvalidDocument, which names
the field, its value and what would be right.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self

from moe_core.document import InvalidDocument, Reader
from moe_operator.spec import Body, Meta


class Action(StrEnum):
    """What an Override asks for; the first two hold, the others act once."""

    SERVE = "Serve"
    PAUSE = "Pause"
    PROMOTE = "Promote"
    ABORT = "Abort"
    RETRY = "Retry"


class TargetKind(StrEnum):
    """What an Override decides about."""

    EXPERT = "Expert"
    GATE = "Gate"
    MIXTURE = "Mixture"


class ReplacedKind(StrEnum):
    """What serves its version of an epoch that is brought back."""

    EXPERT = "Expert"
    GATE = "Gate"


@dataclass(frozen=True, slots=True)
class OverrideSpec:
    """What a person decided about one Expert or Gate, or about a Mixture; `step` None means any.

    Of a Mixture there is only Serve: `replaces` holds, by kind and name of the objects that serve
    their version of `epoch`, the spec.version that this is about.
    """

    meta: Meta
    target: str
    action: Action
    version: str = ""
    instead_of: str = ""
    revision: int = 0
    step: int | None = None
    reason: str = ""
    requested_by: str = ""
    kind: TargetKind = TargetKind.EXPERT
    epoch: int = 0
    replaces: Mapping[tuple[ReplacedKind, str], str] = field(default_factory=dict)

    @classmethod
    def from_body(cls, body: Body) -> Self:
        """Read an Override object. Raises InvalidDocument."""
        spec = Reader(body.get("spec"), "spec")
        target, action = spec.child("targetRef"), spec.enum("action", Action)
        kind = target.enum("kind", TargetKind, default=TargetKind.EXPERT)
        if kind is TargetKind.MIXTURE:
            return cls._of_mixture(body, spec)
        holds = action in (Action.SERVE, Action.PAUSE)
        return cls(
            meta=Meta.from_body(body),
            target=target.text("name"),
            action=action,
            version=spec.text("version", default=None if action is Action.SERVE else ""),
            instead_of=spec.text("insteadOf", default=None if holds else ""),
            revision=spec.integer("revision", default=0 if holds else None),
            step=spec.integer("step") if "step" in spec.value else None,
            reason=spec.text("reason", default=""),
            requested_by=spec.text("requestedBy", default=""),
            kind=kind,
        )

    @classmethod
    def _of_mixture(cls, body: Body, spec: Reader) -> Self:
        action = spec.enum("action", Action)
        if action is not Action.SERVE:
            message = f"spec.action is {action.value!r}; of a Mixture there is only Serve"
            raise InvalidDocument(message)
        return cls(
            meta=Meta.from_body(body),
            target=spec.child("targetRef").text("name"),
            action=action,
            reason=spec.text("reason", default=""),
            requested_by=spec.text("requestedBy", default=""),
            kind=TargetKind.MIXTURE,
            epoch=spec.integer("epoch", low=1),
            replaces={
                (item.enum("kind", ReplacedKind), item.text("name")): item.text("insteadOf")
                for item in spec.items("replaces")
            },
        )
