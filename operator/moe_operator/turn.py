"""What one pass made of one expert: data that the later stages of a plan go by."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from moe_core.rows import ExpertRow
from moe_operator.case import Case, Decision
from moe_operator.evaluators import Evaluated
from moe_operator.intent import Manifest
from moe_operator.lineage import Lineage
from moe_operator.scaling import Size
from moe_operator.seen import Seen


@dataclass(frozen=True, slots=True)
class Turn:
    """One expert, or a gate in its terms: what its step depended on, and what it is."""

    case: Case
    before: ExpertRow
    decision: Decision
    lineage: Lineage
    seen: Seen
    evaluated: Evaluated | None = None
    size: Size | None = None  # where its load decides on its replicas

    @property
    def row(self) -> ExpertRow:
        return self.decision.row

    @property
    def at_rest(self) -> bool:
        """Whether its version is served, and nothing is under way, asked for or waited for."""
        decision, row = self.decision, self.row
        over = row.rollout is None or row.rollout.outcome.ended
        stays = row == self.before and row.stable is not None and row.previous is None
        return over and stays and not (decision.room or decision.asks or decision.held)

    @property
    def evaluator(self) -> Manifest | None:
        """The evaluator to make, where the trial that it is for goes on as it is."""
        same = self.row.rollout == self.before.rollout
        return self.evaluated.made if self.evaluated is not None and same else None

    @property
    def times(self) -> Iterator[datetime | None]:
        """When time alone may change something."""
        yield self.decision.again_at
        if self.evaluated is not None:
            yield self.evaluated.again_at
