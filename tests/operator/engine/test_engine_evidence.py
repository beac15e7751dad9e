"""Windows: what versions did since their step began, however routers come and go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from moe_core.rollout import Outcome, Rollout, Version, WeightSince
from moe_core.rows import ExpertRow, Role
from moe_core.table import Failover, Table
from moe_operator.evidence import Evidence, digests_under_rollout
from moe_operator.router_report import Counters, RouterReport
from moe_operator.window import Window
from tests.operator.engine.bodies import sha

STABLE = Version("v1", sha("a"), "file:///a")
CANDIDATE = Version("v2", sha("b"), "file:///b")


def table(step: int = 1, outcome: Outcome = Outcome.PROGRESSING, revision: int = 2) -> Table:
    rollout = Rollout(
        revision, CANDIDATE, step, "2026-01-01T00:00:00Z", outcome, "", "s", (WeightSince(3, 25),)
    )
    row = ExpertRow(
        "tiny-e0", "e0", Role.ROUTED, (0,), stable=STABLE, candidate=CANDIDATE, rollout=rollout
    )
    return Table("tiny", "t", 3, 64, 1, "Float32", "", Failover(), (), (row,))


def report(
    pod: str = "r0",
    incarnation: str = "i0",
    bounds: tuple[int, ...] = (10, 100),
    **requests: int,
) -> RouterReport:
    """Return a report with so many requests of versions `a` and `b`, ten rows each."""
    versions: Mapping[str, Counters] = {
        sha(letter): Counters(requests=n, rows=10 * n, latency_counts=(n, 0, 0))
        for letter, n in requests.items()
    }
    at = datetime(2026, 1, 1, tzinfo=UTC)
    return RouterReport(pod, incarnation, at, "t", 3, bounds, {}, versions)


def requests(windows: Mapping[str, Window]) -> dict[str, int]:
    return {sha256[0]: window.requests for sha256, window in windows.items()}


def test_a_window_begins_where_the_counters_stood_when_the_step_was_first_seen() -> None:
    evidence = Evidence()
    assert requests(evidence.windows(table(), [report(a=100, b=5)])) == {"a": 0, "b": 0}
    windows = evidence.windows(table(), [report(a=130, b=15)])
    assert requests(windows) == {"a": 30, "b": 10}
    assert windows[sha("b")].rows == 100
    assert windows[sha("b")].latency_counts == (10, 0, 0)
    assert windows[sha("b")].latency_bounds_us == (10, 100)


def test_the_next_step_and_another_revision_begin_anew() -> None:
    evidence = Evidence()
    evidence.windows(table(step=1), [report(a=0, b=0)])
    evidence.windows(table(step=1), [report(a=50, b=50)])
    assert requests(evidence.windows(table(step=2), [report(a=60, b=60)])) == {"a": 0, "b": 0}
    evidence.windows(table(step=2), [report(a=70, b=70)])
    later = evidence.windows(table(step=2, revision=3), [report(a=75, b=75)])
    assert requests(later) == {"a": 0, "b": 0}


def test_routers_are_added_up_and_one_that_starts_anew_counts_from_zero() -> None:
    evidence = Evidence()
    evidence.windows(table(), [report("r0", a=10, b=10), report("r1", a=20, b=20)])
    both = [report("r0", a=11, b=12), report("r1", a=21, b=22)]
    assert requests(evidence.windows(table(), both)) == {"a": 2, "b": 4}
    restarted = [report("r0", a=11, b=12), report("r1", "i1", a=3, b=4)]
    assert requests(evidence.windows(table(), restarted)) == {"a": 1 + 3, "b": 2 + 4}


def test_a_version_that_was_never_used_counts_from_zero() -> None:
    evidence = Evidence()
    evidence.windows(table(), [report(a=10, b=0)])
    assert requests(evidence.windows(table(), [report(a=10, b=7)])) == {"a": 0, "b": 7}


def test_how_long_a_step_has_been_counted_is_told_by_the_clock_of_each_router() -> None:
    def said(pod: str, incarnation: str, seconds: float) -> RouterReport:
        at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
        return replace(report(pod, incarnation, a=1), at=at)

    evidence = Evidence()
    first = evidence.windows(table(), [said("r0", "i0", 0), said("r1", "i0", 900)])
    assert first[sha("a")].lasted_s == 0
    later = evidence.windows(table(), [said("r0", "i0", 7), said("r1", "i1", 905)])
    assert later[sha("a")].lasted_s == 7
    assert evidence.windows(table(step=2), [said("r0", "i0", 8)])[sha("a")].lasted_s == 0


def test_copies_and_overflow_are_counted_from_where_they_stood_too() -> None:
    def said(copies: int) -> RouterReport:
        counters = Counters(
            shadow_requests=copies,
            shadow_rows=2 * copies,
            shadow_errors=3 * copies,
            shadow_nonfinite_rows=4 * copies,
            shadow_norm_sum=5.0 * copies,
            session_pairs=6 * copies,
            overflow_pairs=7 * copies,
            overflow_sessions=8 * copies,
        )
        return replace(report(a=0), versions={sha("a"): Counters(), sha("b"): counters})

    evidence = Evidence()
    evidence.windows(table(), [said(10)])
    window = evidence.windows(table(), [said(17)])[sha("b")]
    assert (window.shadow_requests, window.shadow_rows) == (7, 14)
    assert (window.shadow_errors, window.shadow_nonfinite_rows) == (21, 28)
    assert window.shadow_norm_sum == 35.0
    assert (window.session_pairs, window.overflow_pairs) == (42, 49)
    assert window.overflow_sessions == 56


def test_a_version_that_was_not_asked_for_before_counts_from_its_first_report() -> None:
    evidence = Evidence()
    evidence.windows(table(), [report(a=10)])
    assert requests(evidence.windows(table(), [report(a=10, b=900)])) == {"a": 0, "b": 0}
    assert requests(evidence.windows(table(), [report(a=10, b=907)])) == {"a": 0, "b": 7}


def test_histograms_of_routers_with_other_buckets_are_left_out() -> None:
    evidence = Evidence()
    evidence.windows(table(), [report("r0", a=0, b=0), report("r1", a=0, b=0)])
    said = [report("r0", a=1, b=1), report("r1", bounds=(7, 8), a=1, b=1)]
    window = evidence.windows(table(), said)[sha("b")]
    assert window.requests == 2
    assert window.latency_counts == (1, 0, 0)


def test_only_rollouts_in_progress_are_watched() -> None:
    assert digests_under_rollout(table()) == (sha("a"), sha("b"))
    assert digests_under_rollout(table(outcome=Outcome.PAUSED)) == (sha("a"), sha("b"))
    ended = table(outcome=Outcome.ROLLED_BACK)
    assert digests_under_rollout(ended) == ()
    assert Evidence().windows(ended, [report(a=1, b=1)]) == {}
    without = replace(ended.experts[0], rollout=None)
    assert digests_under_rollout(replace(ended, experts=(without,))) == ()
