"""Brings together all evidence on the candidate of one expert or gate, cheapest first.

Counters of routers, the golden set, outcomes of sessions, and Prometheus: each is judged by its
own module, and here they are put in order. Before a candidate has weight only the golden set is
waited for, and only what cannot be right objects.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from moe_core.rollout import Rollout, Version
from moe_core.rows import ExpertRow, GateRow
from moe_operator.case import Case
from moe_operator.evaluators import NAME, Evaluated
from moe_operator.gate_verdict import CHECKS_OF_GATES, loading, routing, routing_findings
from moe_operator.judgement import Finding, Judgement
from moe_operator.outcomes import outcome_findings
from moe_operator.questions import prometheus_findings
from moe_operator.reason import moment
from moe_operator.router_report import RouterReport
from moe_operator.spec import MixtureSpec
from moe_operator.trial import GateReach
from moe_operator.verdict import CHECKS, DARK_CHECKS, Check, Evidence, Tier, Verdict
from moe_operator.window import Window
from moe_operator.world import Answer, Question


@dataclass(frozen=True, slots=True)
class Sources:
    """Where evidence comes from, beside the counters in the windows."""

    mixture: MixtureSpec
    evaluated: Evaluated | None
    routers: Sequence[RouterReport]
    answers: Mapping[Question, Answer]
    alarms: tuple[Finding, ...] = ()  # of gates and other experts that it concerns


def judge(row: ExpertRow, case: Case, sources: Sources) -> Judgement:
    """Return what is known of the candidate in its step; of one that ended, what it passed."""
    rollout = row.rollout
    if rollout is None:
        return Judgement()
    found: list[Finding] = []
    if row.candidate is not None and row.stable is not None:
        found += sources.alarms
        checks = CHECKS if rollout.step > 0 else DARK_CHECKS
        found += _counted(rollout, row.stable, case, checks)
        sums = [s for r in sources.routers for s in r.outcomes if s.expert_id == row.expert_id]
        found += outcome_findings(rollout, row.stable, sums, case.expert.rollout.outcomes)
        found += prometheus_findings(row, sources.mixture, case.expert, sources.answers)
    return _in_order((*found, *_golden(rollout, sources)))


def judge_gate(gate: GateRow, row: ExpertRow, case: Case, sources: Sources) -> Judgement:
    """Do the same for a gate; `row` is its row in the terms of an expert."""
    rollout, strategy = gate.rollout, case.expert.rollout
    if rollout is None:
        return Judgement()
    found: list[Finding] = []
    if gate.candidate is not None and row.stable is not None:
        found += sources.alarms
        found += _loaded(rollout, case)
        shadows = (shadow for router in sources.routers for shadow in router.shadows)
        seen = routing(gate, shadows, strategy.routing)
        if seen is not None and strategy.shadow_percent:
            found += routing_findings(seen, waited_for=rollout.step == 0)
        if rollout.step > 0:
            found += _counted(rollout, row.stable, case, CHECKS_OF_GATES)
        sums = [s for router in sources.routers for s in router.outcomes if s.gate == gate.name]
        found += outcome_findings(rollout, row.stable, sums, strategy.outcomes)
        found += prometheus_findings(row, sources.mixture, case.expert, sources.answers)
    return _in_order((*found, *_golden(rollout, sources)))


def _in_order(found: Iterable[Finding]) -> Judgement:
    order = list(Tier)
    return Judgement(tuple(sorted(found, key=lambda finding: order.index(finding.tier))))


def _golden(rollout: Rollout, sources: Sources) -> Iterator[Finding]:
    if rollout.evaluated:
        yield Finding(Tier.QUALITY, NAME, Verdict(True, rollout.evaluated))
    elif sources.evaluated is not None:
        yield sources.evaluated.finding


def _loaded(rollout: Rollout, case: Case) -> Iterator[Finding]:
    """Say how many routers have a gate on trial; in the dark there is a time for it."""
    reach, sha256 = case.reach, rollout.target.sha256
    if rollout.step == 0 and isinstance(reach, GateReach):
        ends = moment(rollout.step_began) + timedelta(
            seconds=case.expert.rollout.progress_deadline_s
        )
        loaded, routers = reach.workers(sha256), len(reach.ready)
        verdict = loading(loaded, routers, reach.trouble(sha256), ends <= case.now)
        yield Finding(Tier.SANITY, "loading", verdict)


def _counted(
    rollout: Rollout, stable: Version, case: Case, checks: Iterable[Check]
) -> Iterator[Finding]:
    """Judge what routers counted; a candidate without weight has only copies and evaluations."""
    nothing, sha256 = Window(), rollout.target.sha256
    seen = Evidence(
        candidate=case.windows.get(sha256, nothing),
        stable=case.windows.get(stable.sha256, nothing),
        lost=case.reach.lost(sha256),
        limits=case.expert.rollout.limits,
        min_requests=case.expert.rollout.min_requests,
    )
    for check in checks:
        yield Finding(check.tier, check.name, check.judge(seen))
