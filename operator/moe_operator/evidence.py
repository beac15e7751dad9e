"""What each version under rollout did since its step began: differences of the routers' counters.

A router's counters are cumulative within its incarnation. They are counted from where they stood
when a step began, or when the router first told of a version in it; a router that starts anew in
the step counts from zero. All this is memory only: after a restart the windows begin anew, which
delays a step and passes none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from moe_core.rows import ExpertRow, GateRow
from moe_core.table import Table
from moe_operator.router_report import Counters, RouterReport
from moe_operator.window import Window

# One step of one rollout: (table uid, expert id or gate, revision, step, when it began).
StepKey = tuple[str, str, int, int, str]


@dataclass(slots=True)
class _Stood:
    """Where one router's counters stood in a step."""

    first: datetime  # when it first reported in this step, by its own clock
    incarnation: str
    anew: bool = False  # whether it is another incarnation than at first
    counters: dict[str, Counters] = field(default_factory=dict)  # by sha256


@dataclass(slots=True)
class _Baseline:
    """Where the counters of the versions of one step stood, by router."""

    step: StepKey
    routers: dict[str, _Stood] = field(default_factory=dict)

    def of(self, report: RouterReport, sha256: str) -> Counters:
        """Return what to subtract from a version's counters, which the report has."""
        stood = self.routers.setdefault(report.pod, _Stood(report.at, report.incarnation))
        if stood.incarnation != report.incarnation:
            stood = _Stood(stood.first, report.incarnation, anew=True)
            self.routers[report.pod] = stood
        before = Counters() if stood.anew else report.versions[sha256]
        return stood.counters.setdefault(sha256, before)

    def lasted_s(self, report: RouterReport) -> float:
        """Return for how long this router has been counted, which `of` was asked for."""
        return (report.at - self.routers[report.pod].first).total_seconds()


@dataclass(slots=True)
class Evidence:
    """The windows of one mixture, kept between plans."""

    _baselines: dict[str, _Baseline] = field(default_factory=dict)

    def windows(self, table: Table, reports: Iterable[RouterReport]) -> Mapping[str, Window]:
        """Return what the versions under rollout did in their step so far, by sha256."""
        found: dict[str, Window] = {}
        said = tuple(reports)
        current = {step[1]: (step, row) for step, row in _steps(table)}
        self._baselines = {e: b for e, b in self._baselines.items() if e in current}
        for expert_id, (step, row) in current.items():
            baseline = self._baselines.get(expert_id)
            if baseline is None or baseline.step != step:
                baseline = self._baselines[expert_id] = _Baseline(step)
            for version in row.named:
                found[version.sha256] = _window(baseline, said, version.sha256)
        return found


def digests_under_rollout(table: Table) -> tuple[str, ...]:
    """Return the versions whose counters the operator needs in detail."""
    return tuple(sorted({v.sha256 for _, row in _steps(table) for v in row.named}))


def _steps(table: Table) -> Iterator[tuple[StepKey, ExpertRow | GateRow]]:
    rows: tuple[ExpertRow | GateRow, ...] = (*table.experts, *table.gates)
    for row in rows:
        rollout = row.rollout
        if rollout is not None and not rollout.outcome.ended:
            name = row.expert_id if isinstance(row, ExpertRow) else f"gate {row.name}"
            key = (table.uid, name, rollout.revision, rollout.step, rollout.step_began)
            yield key, row


def _window(baseline: _Baseline, reports: Iterable[RouterReport], sha256: str) -> Window:
    total = Window()
    for report in reports:
        if sha256 in report.versions:
            counted = _since(report.versions[sha256], baseline.of(report, sha256))
            lasted_s = max(total.lasted_s, baseline.lasted_s(report))
            total = replace(_add(total, counted, report.latency_bounds_us), lasted_s=lasted_s)
    return total


def _since(now: Counters, before: Counters) -> Counters:
    counts = before.latency_counts or (0,) * len(now.latency_counts)
    return Counters(
        requests=now.requests - before.requests,
        rows=now.rows - before.rows,
        errors=now.errors - before.errors,
        nonfinite_rows=now.nonfinite_rows - before.nonfinite_rows,
        norm_sum=now.norm_sum - before.norm_sum,
        latency_counts=tuple(a - b for a, b in zip(now.latency_counts, counts, strict=False)),
        shadow_requests=now.shadow_requests - before.shadow_requests,
        shadow_rows=now.shadow_rows - before.shadow_rows,
        shadow_errors=now.shadow_errors - before.shadow_errors,
        shadow_nonfinite_rows=now.shadow_nonfinite_rows - before.shadow_nonfinite_rows,
        shadow_norm_sum=now.shadow_norm_sum - before.shadow_norm_sum,
        session_pairs=now.session_pairs - before.session_pairs,
        overflow_pairs=now.overflow_pairs - before.overflow_pairs,
        overflow_sessions=now.overflow_sessions - before.overflow_sessions,
        mass=now.mass - before.mass,
        lost_mass=now.lost_mass - before.lost_mass,
    )


def _add(window: Window, counters: Counters, bounds_us: tuple[int, ...]) -> Window:
    """Add one router's counts; histograms only where its buckets are those of the others."""
    total = replace(
        window,
        requests=window.requests + counters.requests,
        rows=window.rows + counters.rows,
        errors=window.errors + counters.errors,
        nonfinite_rows=window.nonfinite_rows + counters.nonfinite_rows,
        norm_sum=window.norm_sum + counters.norm_sum,
        shadow_requests=window.shadow_requests + counters.shadow_requests,
        shadow_rows=window.shadow_rows + counters.shadow_rows,
        shadow_errors=window.shadow_errors + counters.shadow_errors,
        shadow_nonfinite_rows=window.shadow_nonfinite_rows + counters.shadow_nonfinite_rows,
        shadow_norm_sum=window.shadow_norm_sum + counters.shadow_norm_sum,
        session_pairs=window.session_pairs + counters.session_pairs,
        overflow_pairs=window.overflow_pairs + counters.overflow_pairs,
        overflow_sessions=window.overflow_sessions + counters.overflow_sessions,
        mass=window.mass + counters.mass,
        lost_mass=window.lost_mass + counters.lost_mass,
    )
    differs = window.latency_counts and window.latency_bounds_us != bounds_us
    if differs or not counters.latency_counts:
        return total
    before = window.latency_counts or (0,) * len(counters.latency_counts)
    sums = tuple(a + b for a, b in zip(before, counters.latency_counts, strict=True))
    return replace(total, latency_counts=sums, latency_bounds_us=bounds_us)
