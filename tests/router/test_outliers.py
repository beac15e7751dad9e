"""Who is left alone for a while: judged against peers, with minimums, half of them at most."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_router.conduct import Conduct, Period
from moe_router.latency import count_latency, no_latencies
from moe_router.message import Message
from moe_router.outlier import (
    FIRST_EJECTION_S,
    LONGEST_EJECTION_S,
    LOOK_S,
    Standing,
    chance_of,
    look,
    peers_of,
)
from moe_router.replica import Offer, Routable
from moeops.v1.link_pb2 import GroupResult, Result
from moeops.v1.types_pb2 import Failure
from tests.support.messages import message_to

PAIR = peers_of({"w1": ["a", "b"], "w2": ["a", "b"], "other": ["c"]})


def period(
    ms: float = 1.0, answers: int = 50, late: int = 0, size: int = 1, **more: object
) -> Period:
    times = no_latencies()
    for _ in range(answers):
        count_latency(times, ms / 1000)
    times[-1] += late
    made = {"groups": {"a": answers}, "moved": answers > 0, **more}
    return Period("i", {size: tuple(times)}, late, **made)  # type: ignore[arg-type]


def bad(messages: int, artifact: str = "a") -> Period:
    return period(bad={artifact: messages}, spoilt=messages)


def sizes(**ms: float) -> Period:
    """Fifty answers of each size, small and large, that took so long."""
    both = {name: period(took, size=n) for n, (name, took) in enumerate(ms.items())}
    times = {n: one.times[n] for n, one in enumerate(both.values())}
    return Period("i", times, groups={"a": 100}, moved=True)


@dataclass
class Play:
    """Plays periods of a pair of workers, one a second."""

    now_s: float = 0.0
    standings: Mapping[str, Standing] = field(default_factory=dict)

    def go(self, w1: Period, w2: Period | None = None, times: int = 1) -> None:
        for _ in range(times):
            self.now_s += LOOK_S
            periods = {"w1": w1, "w2": w2 or period()}
            self.standings = look(self.standings, periods, PAIR, self.now_s)

    @property
    def ejected(self) -> list[str]:
        return [worker for worker, one in self.standings.items() if one.ejected]

    def until_back(self) -> float:
        """Go on with good conduct until w1 is back; return after how long."""
        since = self.now_s
        while self.ejected:
            self.go(QUIET)
        return self.now_s - since


NAN = bad(4)
QUIET = Period("i")
STUCK = Period("i", stalled=True)
BUSY = Period("i", moved=True)
OVERLOADED = period(answers=10, late=30)


@pytest.mark.parametrize(
    ("w1", "w2", "times", "expected"),
    [
        pytest.param(NAN, period(), 2, [], id="eight bad answers may be chance, of one in two"),
        pytest.param(NAN, period(), 3, ["w1"], id="twelve are none"),
        pytest.param(bad(1), period(answers=5000), 2, [], id="two of very few are too few"),
        pytest.param(bad(1), period(answers=5000), 3, ["w1"], id="three are enough"),
        pytest.param(NAN, NAN, 9, [], id="not where the peer answers no better"),
        pytest.param(bad(5), bad(1), 9, ["w1"], id="but where it does"),
        pytest.param(bad(4), bad(2), 9, [], id="and much"),
        pytest.param(bad(4, "b"), period(), 9, [], id="nor where it was never asked"),
        pytest.param(NAN, QUIET, 9, [], id="nor without a peer's answers"),
        pytest.param(period(incidents=1), period(), 4, [], id="four broken connections"),
        pytest.param(period(incidents=1), period(), 5, ["w1"], id="five broken connections"),
        pytest.param(period(answers=5000, incidents=1), period(), 9, [], id="few among many"),
        pytest.param(period(incidents=1), period(incidents=1), 9, [], id="both break"),
        pytest.param(period(40), period(), 4, [], id="slow for four seconds"),
        pytest.param(period(40), period(), 5, ["w1"], id="slow for five"),
        pytest.param(period(40), period(20), 9, [], id="slower, not several times"),
        pytest.param(period(8), period(0.2), 9, [], id="several times of very little"),
        pytest.param(period(40, answers=4), period(), 9, [], id="too few to have a median"),
        pytest.param(sizes(small=1, large=900), sizes(small=1), 9, [], id="others ask little"),
        pytest.param(sizes(small=40, large=900), sizes(small=1), 5, ["w1"], id="and get it soon"),
        pytest.param(STUCK, period(), 4, [], id="nothing computed for four seconds"),
        pytest.param(STUCK, period(), 5, ["w1"], id="nothing computed for five"),
        pytest.param(STUCK, STUCK, 9, [], id="by nobody"),
        pytest.param(BUSY, period(), 9, [], id="it computes, and nothing is done yet"),
        pytest.param(OVERLOADED, OVERLOADED, 9, [], id="there is too much to do for both"),
        pytest.param(OVERLOADED, period(), 5, ["w1"], id="for one only"),
        pytest.param(QUIET, period(), 9, [], id="nothing asked"),
    ],
)
def test_who_is_ejected(w1: Period, w2: Period, times: int, expected: list[str]) -> None:
    play = Play()
    play.go(w1, w2, times)

    assert play.ejected == expected


def test_a_worker_that_computes_for_two_seconds_is_not_ejected() -> None:
    """Nor for what expires in the line behind it."""
    play = Play()
    for _ in range(20):
        play.go(period())
        play.go(STUCK, times=2)
        play.go(period(500, late=9))

    assert play.ejected == []


def test_it_comes_back_after_a_time_that_doubles_and_good_conduct_ends_that() -> None:
    play = Play()
    play.go(NAN, times=3)
    lasted = [play.until_back()]
    for _ in range(7):
        play.go(NAN)
        assert play.ejected == ["w1"], "on trial four bad answers are enough"
        lasted.append(play.until_back())
    play.go(period(), times=int(LONGEST_EJECTION_S) + 1)
    play.go(NAN, times=2)
    assert play.ejected == [], "the trial is over"
    play.go(NAN)

    assert lasted == [min(FIRST_EJECTION_S * 2**n, LONGEST_EJECTION_S) for n in range(8)]
    assert play.until_back() == FIRST_EJECTION_S


def test_a_new_process_begins_without_a_past() -> None:
    play = Play()
    play.go(NAN, times=3)
    play.go(Period("another"))

    assert play.ejected == []


def test_a_reason_says_what_was_seen() -> None:
    play = Play()
    play.go(NAN, times=3)

    reason = play.standings["w1"].reason
    assert reason == "12 of 150 answers failed or not finite, of its peers 0"


@given(
    st.dictionaries(st.sampled_from("vwxyz"), st.sets(st.sampled_from("abc")), max_size=5),
    st.permutations("vwxyz"),
    st.integers(0, 5),
)
def test_at_most_half_of_an_artifacts_workers_are_out_and_nobody_is_lost(
    held: dict[str, set[str]], order: list[str], count: int
) -> None:
    offers = [Offer(w, dict.fromkeys(d, frozenset({0}))) for w, d in held.items()]
    routable = Routable.of(offers, order[:count])
    for sha256 in "abc":
        holders = {worker for worker, artifacts in held.items() if sha256 in artifacts}
        live = routable.live.get((sha256, 0), ())
        out = routable.ejected.get((sha256, 0), ())

        assert sorted([*live, *out]) == sorted(holders)
        assert len(out) <= len(holders) / 2
        assert set(out) <= set(order[:count])
        assert len(out) == min(len(holders) // 2, len(holders & set(order[:count])))


def test_who_is_asked_when() -> None:
    layers = {"a": frozenset({0})}
    offers = [Offer("good", layers), Offer("out", layers), Offer("mute", layers, doubted=True)]
    routable = Routable.of(offers, ["out"])

    asked: list[tuple[str, ...]] = []
    without: set[tuple[str, str]] = set()
    while found := routable.for_artifact("a", 0, without):
        asked.append(found)
        without |= {(worker, "a") for worker in found}

    assert asked == [("good",), ("out",), ("mute",)]


def answered(message: Message, *groups: GroupResult, queue_us: int = 0, took_s: float) -> Period:
    conduct = Conduct()
    whole = sum(not group.HasField("failure") for group in groups)
    body_bytes = whole * message.rows.nbytes // len(message.parts)
    conduct.answered(message, Result(groups=groups, queue_us=queue_us), body_bytes, took_s)
    return conduct.take("i", 1, 0)


def test_time_in_line_is_not_held_against_a_worker() -> None:
    seen = answered(message_to("w1", "a"), GroupResult(), queue_us=900_000, took_s=0.9001)

    assert [times[0] for times in seen.times.values()] == [1]
    assert (seen.answers, seen.groups, seen.bad, seen.incidents) == (1, {"a": 1}, {}, 0)


@pytest.mark.parametrize(
    ("group", "bad", "answers"),
    [
        pytest.param(GroupResult(nonfinite_rows=1), {"a": 1}, 1, id="not finite"),
        pytest.param(GroupResult(failure=Failure(code=13)), {"a": 1}, 1, id="could not compute"),
        pytest.param(GroupResult(failure=Failure(code=3)), {}, 0, id="asked wrongly"),
        pytest.param(GroupResult(failure=Failure(code=5)), {}, 0, id="just unloaded"),
        pytest.param(GroupResult(failure=Failure(code=4)), {}, 0, id="too late when its turn came"),
        pytest.param(GroupResult(failure=Failure(code=8)), {}, 0, id="too much to do"),
    ],
)
def test_what_counts_against_a_worker(
    group: GroupResult, bad: dict[str, int], answers: int
) -> None:
    seen = answered(message_to("w1", "a"), group, took_s=0.001)

    assert (seen.bad, seen.spoilt, seen.answers) == (bad, len(bad), answers)


def test_a_message_spoils_once_however_many_experts_it_asks() -> None:
    """One row that overflows does so in every expert that it is sent to."""
    spoilt = GroupResult(nonfinite_rows=1)
    seen = answered(message_to("w1", "a", "b"), spoilt, spoilt, took_s=0.001)

    assert (seen.bad, seen.spoilt) == ({"a": 1, "b": 1}, 1)


@pytest.mark.parametrize(
    ("rows", "pending", "expired", "stalled"),
    [
        pytest.param(0, 1, 0, True, id="asked, and nothing computed"),
        pytest.param(0, 0, 1, True, id="until it was too late"),
        pytest.param(9, 1, 0, False, id="something computed"),
        pytest.param(0, 0, 0, False, id="nothing asked"),
    ],
)
def test_a_worker_stalls_that_is_asked_and_computes_nothing(
    rows: int, pending: int, expired: int, stalled: bool
) -> None:
    conduct = Conduct()
    for _ in range(expired):
        conduct.expired(message_to("w1", "a"))

    assert conduct.take("i", rows, pending).stalled is stalled


@given(st.integers(1, 40), st.integers(0, 40), st.floats(0.01, 0.99))
def test_chance_is_bounded_from_above(own: int, others: int, share: float) -> None:
    """By the exact tail of the binomial distribution."""
    of = own + others
    exact = sum(comb(of, n) * share**n * (1 - share) ** (of - n) for n in range(own, of + 1))

    assert exact <= chance_of(own, of, share) * (1 + 1e-9)
    assert others or chance_of(own, of, share) == pytest.approx(share**own)


def test_an_answer_that_does_not_fit_is_an_incident() -> None:
    conduct = Conduct()
    conduct.answered(message_to("w1", "a"), Result(groups=[GroupResult()]), 3, 0.001)

    seen = conduct.take("i", 0, 0)
    assert (seen.incidents, seen.answers) == (1, 0)
    assert conduct.take("i", 0, 0).incidents == 0, "a period begins anew"
