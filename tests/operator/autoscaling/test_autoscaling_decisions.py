"""What a load makes of the replicas: each rule of `load` and `scaling` alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_core.document import InvalidDocument, Reader
from moe_core.worker_load import Load, Sample, WorkerLoad, average, readings, sample
from moe_operator.autoscaling import Autoscaling
from moe_operator.router_report import RouterReport
from moe_operator.scaling import History, Size, asked, queue_ms, remember, scale

START = datetime(2026, 1, 1, tzinfo=UTC)
SPEC = Autoscaling(1, 8, utilization=0.5, up_s=20, down_s=60, panic_s=10)
EVERY_S = 2


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def said(second: float, router: str = "r", **workers: WorkerLoad) -> RouterReport:
    return RouterReport(router, "i", at(second), "uid", 1, (), {}, {}, loads=workers)


def counted(busy_s: float, queued: int = 0, incarnation: str = "i") -> WorkerLoad:
    """Return a worker that takes a millisecond for a row."""
    done = int(1000 * busy_s)
    return WorkerLoad(incarnation, queued, int(1e6 * busy_s), done, done, 0)


class Watched:
    """An expert whose workers bear what they are told to, heard of every two seconds."""

    def __init__(self, replicas: int, spec: Autoscaling = SPEC, floor: int = 1) -> None:
        self.size = Size(spec, replicas, floor, self._pods(replicas))
        self.history, self.second = History(), 0.0
        self._busy_s: dict[str, float] = {}

    def _pods(self, replicas: int) -> frozenset[str]:
        return frozenset(f"w{n}" for n in range(replicas))

    def bears(
        self, seconds: float, busy: float, *, queued: int = 0, silent: str = ""
    ) -> tuple[int, str]:
        """Let the workers share a load for a while; return what was decided last."""
        end, decided = self.second + seconds, (self.size.replicas, "")
        while self.second < end:
            self.second += EVERY_S
            share = min(1.0, busy / len(self.size.pods))
            for pod in self.size.pods:
                self._busy_s[pod] = self._busy_s.get(pod, 0.0) + share * EVERY_S
            known = {p: counted(s, queued) for p, s in self._busy_s.items() if p != silent}
            last = self.history.samples[-1] if self.history.samples else None
            heard = readings([replace(said(self.second), loads=known)])
            found = sample(at(self.second), heard, self.size.pods, last)
            self.history = remember(self.history, found, self.size)
            decided = scale(self.history, self.size, at(self.second))
        return decided

    def follow(self, seconds: float, busy: float) -> list[int]:
        """Let the workers share a load, and have as many as was decided; return the numbers."""
        numbers = [self.size.replicas]
        for _ in range(int(seconds / EVERY_S)):
            replicas, _ = self.bears(EVERY_S, busy)
            if replicas != numbers[-1]:
                numbers.append(replicas)
                self.size = replace(self.size, replicas=replicas, pods=self._pods(replicas))
        return numbers


def test_nothing_is_decided_before_a_whole_window_was_seen() -> None:
    watched = Watched(1)
    assert watched.bears(10, busy=0.8) == (1, "")
    assert watched.bears(12, busy=0.8)[0] == 2


def test_a_load_within_the_tolerance_adds_nothing() -> None:
    assert Watched(2).bears(40, busy=1.09) == (2, "")
    assert Watched(2).bears(40, busy=1.11)[0] == 3


def test_a_worker_that_has_no_time_left_is_urgent() -> None:
    replicas, why = Watched(1).bears(12, busy=1.0)
    assert replicas == 2
    assert "1.0 workers busy 100%" in why
    assert "over 10 s: asks for 2 replicas for 50% busy" in why


def test_what_waits_in_line_says_how_much_more_there_is() -> None:
    # 20,000 rows of a millisecond are 20 s of work; to be done in 10 s it takes two more.
    assert Watched(1).bears(12, busy=1.0)[0] == 2
    watched = Watched(1)
    watched.bears(12, busy=0.4)
    assert watched.bears(2, busy=1.0, queued=20_000)[0] > 4


def test_what_the_line_grew_by_was_offered_and_what_it_shrank_by_was_not() -> None:
    def between(before: int, after: int) -> Load:
        heard = [
            sample(at(s), readings([said(s, w=counted(10 + s, queued))]), ["w"], None)
            for s, queued in ((0, before), (10, after))
        ]
        found = average(heard, 10)
        assert found is not None
        return found

    assert between(0, 5000).offered == pytest.approx(1.5)
    assert between(5000, 0).offered == pytest.approx(0.5)
    assert between(5000, 5000).busy == pytest.approx(1.0)


def test_more_than_the_most_is_never_wanted() -> None:
    assert Watched(8).bears(12, busy=8.0, queued=100_000) == (8, "")
    assert Watched(7).bears(12, busy=7.0, queued=100_000)[0] == 8


def test_replicas_go_only_when_they_were_not_needed_for_the_whole_window() -> None:
    watched = Watched(4)
    assert watched.bears(78, busy=0.4)[0] == 4  # what it was before 20 s were seen counts, too
    replicas, why = watched.bears(4, busy=0.4)
    assert (replicas, why) == (1, "the load of 60 s asked for 1 replicas at most")


def test_one_moment_of_need_in_the_window_keeps_them() -> None:
    watched = Watched(4)
    watched.bears(60, busy=0.4)
    watched.bears(20, busy=1.9)
    assert watched.bears(50, busy=0.4)[0] == 4
    assert watched.bears(20, busy=0.4)[0] < 4


def test_while_something_is_on_trial_they_only_grow() -> None:
    assert Watched(3, floor=3).bears(200, busy=0.1) == (3, "")
    assert Watched(3, floor=3).bears(40, busy=2.0)[0] == 4


def test_a_worker_that_is_not_heard_keeps_all_of_them() -> None:
    assert Watched(3).bears(200, busy=0.3, silent="w1") == (3, "")
    assert Watched(3).bears(200, busy=0.3)[0] == 1


def test_what_was_heard_too_long_ago_says_nothing() -> None:
    watched = Watched(1)
    assert watched.bears(30, busy=1.0)[0] == 2
    assert scale(watched.history, watched.size, at(watched.second + 16)) == (1, "")


def test_after_a_gap_all_is_to_be_seen_anew() -> None:
    watched = Watched(3)
    watched.bears(70, busy=0.3)
    watched.second += 60
    assert watched.bears(70, busy=0.3) == (3, "")
    assert watched.bears(14, busy=0.3)[0] == 1


def test_decreases_keep_their_distance_from_any_change() -> None:
    watched = Watched(4)
    watched.bears(80, busy=1.4)
    watched.size = replace(watched.size, replicas=5, pods=watched._pods(5))
    assert watched.bears(18, busy=1.4) == (5, "")
    assert watched.bears(8, busy=1.4)[0] == 3


@given(busy=st.floats(0.0, 5.0), replicas=st.integers(1, 8))
def test_an_even_load_is_followed_once_and_never_left(busy: float, replicas: int) -> None:
    numbers = Watched(replicas).follow(300, busy)
    ups = numbers == sorted(numbers)
    downs = numbers == sorted(numbers, reverse=True)
    assert ups or downs
    assert busy / numbers[-1] <= 0.5 * 1.1 + 1e-9 or numbers[-1] == 8


def test_a_process_that_began_anew_counts_from_where_it_was_heard_again() -> None:
    def heard(second: float, busy_s: float, incarnation: str) -> Sample:
        report = said(second, w=counted(busy_s, incarnation=incarnation))
        return sample(at(second), readings([report]), ["w"], None)

    seen = [heard(0, 100, "a"), heard(5, 1, "b"), heard(10, 3, "b")]
    found = average(seen, 10)
    assert found is not None
    assert found.busy == pytest.approx(0.2)
    assert found.workers == pytest.approx(0.5)


def test_a_link_without_a_heartbeat_yet_is_no_worker_that_did_nothing() -> None:
    before = sample(at(0), readings([said(0, w=counted(100))]), ["w"], None)
    after = sample(at(2), readings([said(2, w=WorkerLoad("i"))]), ["w"], before)
    assert after.workers == {}
    first = sample(at(0), readings([said(0, w=WorkerLoad("i"))]), ["w"], None)
    last = sample(at(10), readings([said(10, w=counted(100))]), ["w"], first)
    assert average([first, last], 10) == Load(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


def test_of_two_routers_the_one_that_heard_more_counts() -> None:
    reports = [said(2, "r1", w=counted(5)), said(1, "r2", w=counted(4), v=counted(1))]
    found = readings(reports)
    assert {name: reading.load.busy_us for name, reading in found.items()} == {
        "w": 5_000_000,
        "v": 1_000_000,
    }
    anew = said(3, "r2", w=counted(1, incarnation="later"))
    assert readings([*reports, anew])["w"].load.incarnation == "later"


def test_one_worker_waits_as_the_textbook_says() -> None:
    assert queue_ms(0.5, 1, 20) == pytest.approx(20)  # M/M/1: s·ρ/(1 - ρ)
    assert queue_ms(0.5, 4, 20) < queue_ms(0.5, 2, 20) < 20  # who finds any of them free waits not


def waiting(delay_ms: float, busy: float, workers: float) -> Load:
    return Load(busy, busy, workers, 0, delay_ms, service_ms=20)


def test_a_target_of_delay_asks_for_the_workers_at_which_nobody_waits_longer() -> None:
    spec = Autoscaling(1, 8, delay_ms=10)
    random_ms = queue_ms(0.75, 2, 20)
    assert asked(spec, waiting(random_ms, 1.5, 2)) == 3
    assert asked(spec, waiting(random_ms, 1.5, 2)) == asked(spec, waiting(0.0, 1.5, 40))
    assert asked(spec, waiting(4 * random_ms, 1.5, 2)) == 4  # it comes in bursts
    assert asked(replace(spec, delay_ms=14), waiting(random_ms, 1.5, 2)) == 3
    assert asked(replace(spec, delay_ms=14), waiting(random_ms / 2, 1.5, 2)) == 2  # evenly


def test_a_queue_that_is_full_tells_nothing_of_how_long_it_would_be() -> None:
    spec = Autoscaling(1, 8, delay_ms=10)
    assert asked(spec, waiting(9000, 2, 2)) == asked(spec, waiting(90, 2, 2)) == 3
    assert asked(spec, waiting(9000, 8, 8)) == 9  # more than there may be


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"maxReplicas": 2}, "autoscaling has neither of targetUtilizationPercent and"),
        (
            {"maxReplicas": 2, "targetUtilizationPercent": 50, "targetQueueDelayMilliseconds": 5},
            "autoscaling has both of",
        ),
        (
            {"minReplicas": 3, "maxReplicas": 2, "targetUtilizationPercent": 50},
            "autoscaling.minReplicas is 3; maxReplicas is 2",
        ),
        ({"targetUtilizationPercent": 50}, "autoscaling.maxReplicas is missing"),
        ({"maxReplicas": 2, "targetUtilizationPercent": 96}, "from 5 to 95"),
        (
            {"maxReplicas": 2, "targetUtilizationPercent": 50, "onCold": "Wait"},
            "autoscaling.onCold is Wait, and autoscaling.minReplicas is 1; it must be 0",
        ),
        (
            {"maxReplicas": 2, "targetUtilizationPercent": 50, "onCold": "Sleep"},
            "autoscaling.onCold is 'Sleep'; it must be one of Degrade, Wait",
        ),
    ],
)
def test_what_cannot_be_is_refused(fields: dict[str, object], sentence: str) -> None:
    with pytest.raises(InvalidDocument, match=sentence):
        Autoscaling.read(Reader(fields, "autoscaling"))
