"""What one pass made of one Gate: its turn in the terms of an expert, and its row to come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from moe_core.rows import ExpertRow, GateRow, GateVariant
from moe_operator.ending import promote, revoke
from moe_operator.fit import lacking, on_trial
from moe_operator.reason import Reason, Why, listed
from moe_operator.spec import GateSpec, MixtureSpec
from moe_operator.trial import as_gate
from moe_operator.turn import Turn


@dataclass(frozen=True, slots=True)
class GateTurn:
    """One Gate in this pass; `turn` is in the terms of an expert, `variants` are by sha256."""

    gate: GateSpec
    mixture: MixtureSpec
    before: GateRow | None
    turn: Turn
    variants: Mapping[str, GateVariant]

    @property
    def name(self) -> str:
        return self.gate.meta.name

    @property
    def wanted(self) -> GateVariant:
        """The variant to end at."""
        return self.variants[self.turn.case.wanted.sha256]

    @property
    def row(self) -> GateRow:
        """The row as it is to be, if it fits; of a gate that is new, with what is wanted."""
        if self.turn.row.stable is None:
            return GateRow(self.name, self.turn.row.layers, self.wanted)
        return as_gate(self.turn.row, self.variants)

    @property
    def whole(self) -> GateRow | None:
        """The row as it is where it changes at once, with experts; None where it is not ready.

        That is when it would get its first weight.
        """
        row, raised = self.turn.before, self.turn.row.rollout
        if not self.dark or raised is None or not raised.weights:
            return None
        return self.at_once(row)

    def at_once(self, row: ExpertRow) -> GateRow:
        """Return the row as it is where `row`, which is on trial, is promoted now."""
        rollout, stable = row.rollout, row.stable
        assert rollout is not None
        assert stable is not None
        said = f"{rollout.target.version} is served, with the versions of experts that it accepts"
        new = promote(row, rollout, said, self.turn.case).row
        return as_gate(replace(new, previous=None, revoked=revoke(new, stable)), self.variants)

    @property
    def on_trial(self) -> bool:
        return on_trial(self.turn.row)

    @property
    def dark(self) -> bool:
        """Whether a candidate is in the shadow of the stable variant: no session has seen it."""
        row, rollout = self.turn.before, self.turn.before.rollout
        return row.candidate is not None and rollout is not None and not rollout.weights

    def awaits(self, experts: Mapping[str, ExpertRow]) -> bool:
        """Return whether it is in the dark and waits for versions of experts that it accepts."""
        return self.dark and bool(lacking(self.row, self.wanted, experts))


def confounded(version: str, under_way: Sequence[str]) -> Why:
    """Say that a version of a gate waits until the rollouts of others are over."""
    return Why(
        Reason.WOULD_CONFOUND,
        f"{version} waits for the rollouts of {listed(under_way)} to end: "
        "their verdicts would be about two gates",
    )
