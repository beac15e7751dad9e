"""Brings together all evidence on the candidate of one expert, cheapest first.

Counters of routers, the golden set, outcomes of sessions, and Prometheus: each is judged by its
own module, and here they are put in order. Before a candidate has weight only the golden set is
waited for, and only what cannot be right objects.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from moe_core.table import ExpertRow, Rollout, Version
from moe_operator.case import Case
from moe_operator.evaluators import NAME, Evaluated
from moe_operator.judgement import Finding, Judgement
from moe_operator.outcomes import outcome_findings
from moe_operator.questions import prometheus_findings
from moe_operator.spec import MixtureSpec
from moe_operator.verdict import CHECKS, DARK_CHECKS, Evidence, Tier, Verdict
from moe_operator.world import Answer, Question, RouterReport, Window


@dataclass(frozen=True, slots=True)
class Sources:
    """Where evidence comes from, beside the counters in the windows."""

    mixture: MixtureSpec
    evaluated: Evaluated | None
    routers: Sequence[RouterReport]
    answers: Mapping[Question, Answer]


def judge(row: ExpertRow, case: Case, sources: Sources) -> Judgement:
    """Return what is known of the candidate in its step; of one that ended, what it passed."""
    rollout = row.rollout
    if rollout is None:
        return Judgement()
    found: list[Finding] = []
    if row.candidate is not None and row.stable is not None:
        found += _counted(rollout, row.stable, case)
        sums = [s for r in sources.routers for s in r.outcomes if s.expert_id == row.expert_id]
        found += outcome_findings(rollout, row.stable, sums, case.expert.rollout.outcomes)
        found += prometheus_findings(row, sources.mixture, case.expert, sources.answers)
    if rollout.evaluated:
        found.append(Finding(Tier.QUALITY, NAME, Verdict(True, rollout.evaluated)))
    elif sources.evaluated is not None:
        found.append(sources.evaluated.finding)
    order = list(Tier)
    return Judgement(tuple(sorted(found, key=lambda finding: order.index(finding.tier))))


def _counted(rollout: Rollout, stable: Version, case: Case) -> Iterator[Finding]:
    """Judge what routers counted; a candidate without weight has only copies and evaluations."""
    nothing, sha256 = Window(), rollout.target.sha256
    seen = Evidence(
        candidate=case.windows.get(sha256, nothing),
        stable=case.windows.get(stable.sha256, nothing),
        lost=case.reach.lost(sha256),
        limits=case.expert.rollout.limits,
        min_requests=case.expert.rollout.min_requests,
    )
    for check in CHECKS if rollout.step > 0 else DARK_CHECKS:
        yield Finding(check.tier, check.name, check.judge(seen))
