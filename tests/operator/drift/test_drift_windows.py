"""Windows of live rows: what is in them, when an alarm is raised, and when it ends."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_core.drift import GROUPS, Spread
from moe_operator.cache import Key
from moe_operator.drift import Detector, History, Tallies, Tally, Watched, remember
from moe_operator.drift_spec import DriftSpec
from moe_operator.drifts import Drifts
from moe_operator.router_report import RouterReport
from tests.operator.drift.test_drift_statistic import EVEN, KINDS
from tests.operator.drift.traffic import Traffic

SHA = "9" * 64
TINY = Key("default", "tiny")
NOW = datetime(2026, 1, 1, tzinfo=UTC)
WINDOW = 16_384  # 256 sessions
LAW = {"law": 1.0}
NOTHING: dict[str, float] = {}


def recorded(sessions: int = 2000) -> DriftSpec:
    base = Traffic(KINDS, seed=99)
    base.serve(sessions, EVEN)
    return DriftSpec({SHA: {(0, ""): base.spread}}, window_rows=WINDOW)


def watched(spec: DriftSpec) -> Watched:
    return Watched("gate", "v1", SHA, ("e0", "e1", "e2", "e3"), spec)


class Live:
    """A gate that serves, in samples of 16 sessions, and what is remembered of it."""

    def __init__(self, spec: DriftSpec, seed: int = 1) -> None:
        self.of, self.traffic, self.history = watched(spec), Traffic(KINDS, seed), History()

    def serve(self, samples: int, mix: Mapping[str, float], overflow: float = 0.0) -> None:
        for _ in range(samples):
            came = Traffic(KINDS, int(self.traffic.rng.integers(1 << 30)))
            came.serve(16, mix, overflow)
            self.history = remember(self.history, came.tallies, self.of)

    def samples_until(self, detector: Detector, there: bool, mix: Mapping[str, float]) -> int:
        for sample in range(1, 100):
            self.serve(1, mix)
            if (detector in self.history.alarms) is there:
                return sample
        raise AssertionError(f"{detector} is {not there} after 100 samples")


def test_the_same_mix_gives_no_alarm_in_any_of_many_windows() -> None:
    for seed in range(5):
        live = Live(recorded(), seed)
        for _ in range(100):
            live.serve(1, EVEN)
            assert live.history.alarms == {}
        assert live.history.whole_window


def test_a_shift_is_found_before_the_window_is_full_of_it_and_ends_when_it_is_over() -> None:
    live = Live(recorded())
    live.serve(20, EVEN)
    assert live.samples_until(Detector.DRIFTING, True, LAW) <= 16
    assert "layer 0 is at PSI" in live.history.alarms[Detector.DRIFTING]
    assert "maxPsiPercent is 25" in live.history.alarms[Detector.DRIFTING]
    live.serve(20, LAW)
    assert live.samples_until(Detector.DRIFTING, False, EVEN) <= 20


def exactly(*shares: float) -> Tallies:
    """Return rows of so many sessions that nothing is left to chance: all groups are alike."""
    pairs = [round(1e4 * share) for share in shares] * GROUPS
    return {(0, ""): Tally(WINDOW, array("q", pairs))}


FAR, CLOSE, NEAR = (0.7, 0.1, 0.1, 0.1), (0.5, 0.2, 0.15, 0.15), (0.4, 0.2, 0.2, 0.2)


@pytest.mark.parametrize(
    ("came", "alarm"),
    [
        pytest.param([NEAR, NEAR], False, id="well below the limit"),
        pytest.param([CLOSE] * 9, False, id="a little below it"),
        pytest.param([FAR] * 9, True, id="beyond it"),
        pytest.param([FAR] * 9 + [CLOSE] * 9, True, id="a little below it again"),
        pytest.param([FAR] * 9 + [NEAR] * 9, False, id="well below it again"),
        pytest.param([FAR] * 9 + [NEAR] * 9 + [CLOSE] * 9, False, id="and a little below it"),
    ],
)
def test_an_alarm_holds_until_the_estimate_is_well_below_the_limit(
    came: list[tuple[float, ...]], alarm: bool
) -> None:
    base = Spread((0.25,) * 4, 1e6)
    spec = DriftSpec({SHA: {(0, ""): base}}, WINDOW, max_psi_percent=32)  # CLOSE is at 29
    history = History()
    for shares in came:
        history = remember(history, exactly(*shares), watched(spec))
    assert (Detector.DRIFTING in history.alarms) is alarm


def test_few_experts_in_use_are_told_without_a_baseline() -> None:
    live = Live(replace(recorded(), baselines={}, min_experts_percent=80))
    live.serve(20, EVEN)
    assert live.history.alarms == {}
    assert live.samples_until(Detector.COLLAPSED, True, LAW) <= 20
    assert "minExpertsInUsePercent is 80" in live.history.alarms[Detector.COLLAPSED]
    assert live.samples_until(Detector.COLLAPSED, False, EVEN) <= 20


def test_overflow_is_told_where_it_is_surely_beyond_the_limit() -> None:
    live = Live(replace(recorded(), max_overflow_percent=40))
    live.serve(20, EVEN, overflow=0.35)
    assert live.history.alarms == {}
    live.serve(20, EVEN, overflow=0.6)
    assert set(live.history.alarms) == {Detector.OVERFLOWING}
    assert "60.0% of the pairs of layer 0" in live.history.alarms[Detector.OVERFLOWING]
    live.serve(20, EVEN, overflow=0.2)
    assert live.history.alarms == {}


def test_one_session_however_long_tells_nothing() -> None:
    live = Live(recorded())
    pairs = array("q", [100_000, 0, 0, 0] + [0] * 4 * (GROUPS - 1))
    live.history = remember(live.history, {(0, ""): Tally(100_000, pairs)}, live.of)
    assert live.history.alarms == {}
    assert live.history.distances == {}


def test_what_rows_say_they_are_about_is_compared_apart() -> None:
    """Of all rows nothing has changed; of those of one context it has."""
    about = Traffic(KINDS, seed=5, place=(0, "legal"))
    about.serve(2000, LAW)
    spec = recorded()
    known = {**spec.baselines[SHA], (0, "legal"): about.spread}
    live = Live(replace(spec, baselines={SHA: known}))
    for seed in range(20):
        every, some = Traffic(KINDS, seed), Traffic(KINDS, 100 + seed, place=(0, "legal"))
        every.serve(16, EVEN)
        some.serve(16, {"math": 1.0})
        live.history = remember(live.history, {**every.tallies, **some.tallies}, live.of)
    assert "layer 0 (context legal)" in live.history.alarms[Detector.DRIFTING]
    assert live.history.distances[0, ""].likely < 0.1


@given(st.lists(st.integers(0, 6000), min_size=1, max_size=60))
def test_a_window_holds_the_last_rows_and_forgets_those_before(counts: list[int]) -> None:
    history, of, came = History(), watched(recorded()), 0
    for count in counts:
        pairs = array("q", [count] * (4 * GROUPS))
        history = remember(history, {(0, ""): Tally(count, pairs)}, of)
        came += count
        assert history.rows <= came
        assert history.rows >= min(came, WINDOW)
        # No piece is larger than an eighth of the window and one sample.
        assert history.rows <= WINDOW + WINDOW // 8 + 8 * 6000
        assert sum(history.whole[0, ""].pairs) == 4 * GROUPS * history.rows
        assert history.whole_window == (came >= WINDOW)


def report(tallies: Tallies, pod: str = "r0", incarnation: str = "i") -> RouterReport:
    return RouterReport(pod, incarnation, NOW, "t", 3, (), {}, {}, tallies={SHA: tallies})


def counted(rows: int) -> Tallies:
    return {(0, ""): Tally(rows, array("q", [rows] * (4 * GROUPS)))}


def test_routers_are_added_up_and_one_that_starts_anew_counts_from_zero() -> None:
    drifts = Drifts()
    drifts.follow(TINY, [watched(recorded())])
    heard = [
        [report(counted(1000))],  # what it counted before is of no known time
        [report(counted(1010)), report(counted(500), "r1")],
        [report(counted(1010)), report(counted(520), "r1")],
        [report(counted(3), incarnation="j"), report(counted(520), "r1")],
    ]
    rows = []
    for said in heard:
        assert drifts.hear(TINY, said, NOW) is False
        rows.append(drifts.histories(TINY)["gate", SHA].rows)
    assert rows == [0, 10, 30, 33]


def test_after_a_gap_it_begins_anew() -> None:
    """An operator that did not lead meanwhile, or slept, cannot say when what came has come."""
    drifts, rows = Drifts(), []
    drifts.follow(TINY, [watched(recorded())])
    for seconds, count in ((0, 100), (50, 110), (100, 120), (200, 90_000), (210, 90_005)):
        drifts.hear(TINY, [report(counted(count))], NOW + timedelta(seconds=seconds))
        rows.append(drifts.histories(TINY)["gate", SHA].rows)
    assert rows == [0, 10, 20, 0, 5]


def test_a_look_is_asked_for_when_an_alarm_comes_or_goes_or_a_window_is_whole() -> None:
    drifts, traffic = Drifts(), Traffic(KINDS)
    drifts.follow(TINY, [watched(recorded())])
    news = []
    for sample, mix in enumerate([EVEN] * 30 + [LAW] * 30):
        traffic.serve(16, mix)
        if drifts.hear(TINY, [report(traffic.tallies)], NOW):
            news.append((sample, set(drifts.histories(TINY)["gate", SHA].alarms)))
    (whole, quiet), (shifted, alarms) = news
    assert (whole, quiet) == (16, set())
    assert 30 <= shifted < 46
    assert alarms == {Detector.DRIFTING}
    assert drifts.hear(TINY, [report(traffic.tallies)], NOW) is False  # nothing came


def test_another_baseline_or_version_begins_anew_and_the_same_goes_on() -> None:
    drifts, spec = Drifts(), recorded()
    drifts.follow(TINY, [watched(spec)])
    drifts.hear(TINY, [report(counted(0))], NOW)
    drifts.hear(TINY, [report(counted(50))], NOW)
    drifts.follow(TINY, [watched(replace(spec))])
    assert drifts.histories(TINY)["gate", SHA].rows == 50
    drifts.follow(TINY, [watched(replace(spec, max_psi_percent=10))])
    assert drifts.histories(TINY)["gate", SHA].rows == 0
    drifts.follow(TINY, [])
    assert drifts.histories(TINY) == {}


@pytest.mark.parametrize(
    ("before", "after"), [pytest.param(4, 8, id="longer"), pytest.param(8, 4, id="shorter")]
)
def test_a_list_of_experts_put_right_is_not_added_to_the_old(before: int, after: int) -> None:
    old, new = (Tally(5, array("q", [1] * (n * GROUPS))) for n in (before, after))
    assert new.plus(old) is new
    assert new.minus(old) is new
