"""What clients reported of sessions on candidate and stable, put side by side by weight.

Only sessions that were drawn at random can be compared: those that began while some, and not all,
saw the candidate. Sessions that began under one weight are one stratum. Judged in `quality`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Final

from moe_core.rollout import Rollout, Version
from moe_operator import quality
from moe_operator.judgement import Finding
from moe_operator.router_report import Measure, OutcomeSum
from moe_operator.sequential import Arm, Stratum
from moe_operator.strategy import OutcomeLimits
from moe_operator.verdict import Tier

_UNITS: Final = {Measure.LOSS: "bits per token", Measure.SCORE: "of negated score"}


def outcome_findings(
    rollout: Rollout, stable: Version, sums: Iterable[OutcomeSum], limits: OutcomeLimits
) -> Iterator[Finding]:
    """Give one finding for each measure that is reported of this rollout.

    `sums` are the expert's, of all routers.
    """
    told = tuple(sums)
    for measure in Measure:
        strata = _strata(rollout, stable, [s for s in told if s.measure is measure])
        if any(s.candidate.sessions or s.stable.sessions for s in strata):
            verdict = quality.outcomes(
                strata, limits.max_loss_increase_percent, limits.min_sessions, _UNITS[measure]
            )
            yield Finding(Tier.QUALITY, measure.value.lower(), verdict, late=True)


def _strata(rollout: Rollout, stable: Version, sums: list[OutcomeSum]) -> list[Stratum]:
    drawn = [weight.epoch for weight in rollout.weights if 0 < weight.percent < 100]

    def arm(sha256: str, epoch: int) -> Arm:
        found = (s for s in sums if (s.sha256, s.since_epoch) == (sha256, epoch))
        return sum(map(_worse_is_higher, found), Arm())

    return [Stratum(arm(rollout.target.sha256, e), arm(stable.sha256, e)) for e in drawn]


def _worse_is_higher(found: OutcomeSum) -> Arm:
    arm = found.arm
    return replace(arm, x=-arm.x, wx=-arm.wx) if found.measure is Measure.SCORE else arm
