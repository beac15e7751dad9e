"""What clients report: what is refused, what counts for which arm, that sums are right."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_core.rollout import Outcome, Rollout, WeightSince
from moe_core.rows import ExpertRow
from moe_core.table import Table
from moe_router.outcomes import (
    MAX_OUTCOMES,
    Arm,
    Measure,
    Outcomes,
    Report,
    Share,
    Sums,
    arms,
    parse_reports,
)
from moe_router.refusal import Code, Refused
from moe_router.reporting import Reported
from moe_router.sessions import Start, pin
from moe_router.view import View
from moeops.v1.router_pb2 import ReportOutcomeRequest, SessionOutcome
from tests.router.bench import A, B, Bench, C, canary, mixture, taken_back, worker
from tests.support.tables import UID, expert, gate, table, version

V1, V2 = version("v1"), version("v2")
WEIGHTS = ((2, 0), (3, 25), (5, 50), (8, 100))


def row(expert_id: str = "e", weights: Iterable[tuple[int, int]] = WEIGHTS) -> ExpertRow:
    steps = tuple(WeightSince(*pair) for pair in weights)
    rollout = Rollout(
        2, V2, 1, "2026-01-01T00:00:00Z", Outcome.PROGRESSING, "", f"salt-{expert_id}", steps
    )
    return replace(expert(expert_id, V1), candidate=V2, rollout=rollout)


def view(*rows: ExpertRow, epoch: int = 9, uid: str = UID) -> View:
    content: Table = table(rows, [gate([r.expert_id for r in rows], top_k=1)], epoch=epoch)
    return View.of(replace(content, uid=uid))


ON_TRIAL = view(row())


def report(session: str = "s", began: int = 3, number: int = 1) -> Report:
    return Report(session, Start(UID, began), number, Share(10, 20.0), Share())


def taken(outcomes: Outcomes, *reports: Report, of: View = ON_TRIAL) -> list[bool]:
    return [outcomes.take(one, of, degraded=False) for one in reports]


def sessions(outcomes: Outcomes, of: View = ON_TRIAL) -> dict[int, int]:
    """Return how many sessions count, by the epoch of their weight."""
    found: dict[int, int] = {}
    for arm, _, sums in outcomes.sums(of):
        found[arm.since_epoch] = found.get(arm.since_epoch, 0) + sums.sessions
    return {epoch: count for epoch, count in found.items() if count}


def message(**fields: object) -> ReportOutcomeRequest:
    good: dict[str, object] = {"session": "s", "start_token": Start(UID, 3).to_token("s")}
    one = SessionOutcome(**{**good, "report": 1, "tokens": 4, "loss_bits": 9.5, **fields})  # type: ignore[arg-type]
    return ReportOutcomeRequest(mixture="tiny", outcomes=[one])


def test_a_good_report_is_read() -> None:
    (one,) = parse_reports(message(scores=2, score_sum=-1.5))

    assert one == Report("s", Start(UID, 3), 1, Share(4, 9.5), Share(2, -1.5))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        pytest.param({"session": ""}, "outcomes[0].session has 0 bytes", id="no session"),
        pytest.param(
            {"session": "x" * 129}, "outcomes[0].session has 129 bytes", id="long session"
        ),
        pytest.param({"start_token": b""}, "outcomes[0].start_token is empty", id="no token"),
        pytest.param({"start_token": b"2:x"}, "outcomes[0].start_token is b'2:x'", id="no such"),
        pytest.param(
            {"start_token": Start(UID, 3).to_token("t")},
            "which is not a token of session 's'",
            id="the token of another session",
        ),
        pytest.param({"report": 0}, "outcomes[0].report is 0; a session counts", id="report 0"),
        pytest.param({"tokens": 2**41}, f"outcomes[0].tokens is {2**41}; it must be", id="tokens"),
        pytest.param({"loss_bits": math.nan}, "outcomes[0].loss_bits is nan", id="loss nan"),
        pytest.param({"loss_bits": math.inf}, "outcomes[0].loss_bits is inf", id="loss inf"),
        pytest.param({"loss_bits": -0.5}, "outcomes[0].loss_bits is -0.5", id="loss below zero"),
        pytest.param(
            {"loss_bits": 4.1e6},
            "at most 1000000 for each of the 4 tokens",
            id="more loss than makes sense",
        ),
        pytest.param({"score_sum": 1.0}, "for each of the 0 scores", id="a score of nothing"),
        pytest.param(
            {"scores": 1, "score_sum": -math.inf}, "outcomes[0].score_sum is -inf", id="score inf"
        ),
    ],
)
def test_what_is_wrong_is_named(fields: dict[str, object], words: str) -> None:
    (one,) = parse_reports(message(**fields))

    assert isinstance(one, Refused)
    assert words in one.message
    assert one.code is Code.INVALID_ARGUMENT


def test_a_message_of_too_many_sessions_is_refused() -> None:
    many = ReportOutcomeRequest(outcomes=[SessionOutcome()] * (MAX_OUTCOMES + 1))

    with pytest.raises(
        Refused, match="outcomes has 1025 sessions; a message may have at most 1024"
    ):
        list(parse_reports(many))


@pytest.mark.parametrize(
    ("began", "counts"),
    [
        pytest.param(1, {}, id="before the rollout"),
        pytest.param(2, {}, id="in the dark step"),
        pytest.param(4, {3: 1}, id="under the first weight"),
        pytest.param(7, {5: 1}, id="under the second"),
        pytest.param(8, {}, id="when all were on the candidate"),
    ],
)
def test_only_sessions_whose_arm_was_drawn_count(began: int, counts: dict[int, int]) -> None:
    outcomes = Outcomes()

    assert taken(outcomes, report(began=began)) == [bool(counts)]
    assert sessions(outcomes) == counts


def test_a_session_counts_for_every_rollout_on_the_arm_of_its_pin() -> None:
    both = view(row("e"), row("f", [(4, 50)]), expert("g", V1))
    for number in range(50):
        session = f"s{number}"
        pins = pin(both, session, 6)

        found = {arm.expert_id: arm for arm in arms(both, session, 6)}

        assert found == {
            name: Arm(name, versioned.sha256, since)
            for name, since in (("e", 5), ("f", 4))
            if (versioned := pins.of(both.experts[name])) is not None
        }


def test_a_report_that_comes_twice_counts_once() -> None:
    outcomes = Outcomes()

    assert taken(outcomes, report(), report(), report(number=2), report()) == [
        True, False, True, False,
    ]  # fmt: skip
    ((_, _, sums),) = outcomes.sums(ON_TRIAL)
    assert sums == Sums(sessions=1, w=20, x=40.0, ww=400, xx=1600.0, wx=800.0)


def test_of_a_session_that_was_degraded_nothing_counts_any_more() -> None:
    outcomes = Outcomes()
    taken(outcomes, report(), report("t"))

    assert not outcomes.take(report(number=2), ON_TRIAL, degraded=True)
    assert taken(outcomes, report(number=3)) == [False]
    assert sessions(outcomes) == {3: 1}


def test_what_belongs_to_a_rollout_that_ended_is_dropped_and_does_not_come_back() -> None:
    outcomes = Outcomes()
    taken(outcomes, report())
    ended = view(replace(row(), candidate=None), epoch=10)
    again = view(row(weights=[(12, 50)]), epoch=12)

    assert list(outcomes.sums(ended)) == []
    assert taken(outcomes, report(number=2), of=again) == [False]
    assert list(outcomes.sums(again)) == []
    assert taken(outcomes, report("t", began=12), of=again) == [True]


def test_another_table_is_another_time() -> None:
    outcomes = Outcomes()
    taken(outcomes, report())
    other = view(row(), uid="another")

    assert list(outcomes.sums(other)) == []
    assert outcomes.take(replace(report(), start=Start("another", 3)), other, degraded=False)


def test_sessions_forgotten_for_lack_of_room_stay_in_the_sums() -> None:
    outcomes = Outcomes(capacity=10)
    taken(outcomes, *(report(f"s{n}") for n in range(100)))

    assert sessions(outcomes) == {3: 100}


reports = st.builds(
    Report,
    session=st.sampled_from(["s", "t", "u", "v", "w"]),
    start=st.integers(1, 9).map(lambda epoch: Start(UID, epoch)),
    number=st.integers(1, 6),
    loss=st.builds(Share, st.integers(0, 50), st.integers(0, 500).map(float)),
    score=st.builds(Share, st.integers(0, 5), st.integers(-9, 9).map(float)),
)


@given(st.lists(st.tuples(reports, st.booleans() | st.just(False)), max_size=60))
def test_sums_are_those_of_all_sessions_anew(said: list[tuple[Report, bool]]) -> None:
    outcomes = Outcomes()
    whole: dict[tuple[str, int], list[Report]] = {}
    spoilt = set()
    for one, degraded in said:
        key = one.session, one.start.epoch
        outcomes.take(one, ON_TRIAL, degraded=degraded)
        heard = whole.setdefault(key, [])
        if one.number > (heard[-1].number if heard else 0):
            heard.append(one)
            spoilt |= {key} if degraded else set()

    expected: dict[tuple[Arm, Measure], Sums] = {}
    for key, heard in whole.items():
        for arm in () if key in spoilt else arms(ON_TRIAL, *key):
            shares = {
                Measure.LOSS: sum((r.loss for r in heard), Share()),
                Measure.SCORE: sum((r.score for r in heard), Share()),
            }
            for measure, share in shares.items():
                expected.setdefault((arm, measure), Sums()).add(share, 1)
    found = {(arm, measure): sums for arm, measure, sums in outcomes.sums(ON_TRIAL)}
    assert {k: s for k, s in found.items() if s.sessions} == {
        k: s for k, s in expected.items() if s.sessions
    }
    assert all(s == Sums() for s in found.values() if not s.sessions)


def outcome(bench: Bench, session: str, began: int, **fields: object) -> SessionOutcome:
    token = Start(bench.table.uid, began).to_token(session)
    return SessionOutcome(session=session, start_token=token, report=1, tokens=3, **fields)  # type: ignore[arg-type]


async def told(bench: Bench, *outcomes: SessionOutcome) -> Reported:
    message = ReportOutcomeRequest(mixture="tiny", outcomes=outcomes)
    return await bench.engine.report(message)


async def test_what_is_wrong_in_a_message_costs_the_rest_nothing() -> None:
    bench = Bench(mixture(canary(50)), {"w1": worker(A)})
    good, bad = outcome(bench, "s", 1), outcome(bench, "t", 1, loss_bits=-1.0)
    gone = SessionOutcome(session="u", start_token=Start("other", 1).to_token("u"), report=1)
    ahead, last = outcome(bench, "v", 7), outcome(bench, "w", 1)

    said = await told(bench, good, bad, gone, ahead, last)

    assert said.accepted == 2
    assert [(index, why.code) for index, why in said.refused] == [
        (1, Code.INVALID_ARGUMENT),
        (2, Code.FAILED_PRECONDITION),
        (3, Code.UNAVAILABLE),
    ]
    assert "outcomes[1].loss_bits is -1.0" in said.refused[0][1].message
    assert "begin a new session" in said.refused[1][1].message
    assert "began in epoch 7; this router has only seen 1" in said.refused[2][1].message
    assert await told(bench, good, last) == Reported(0, ())
    assert await told(bench) == Reported(0, ())
    sums = [sums.sessions for _, _, sums in bench.engine.outcomes.sums(View.of(bench.table))]
    assert sum(sums) == 2


async def test_a_message_waits_once_for_the_epochs_of_all_its_sessions() -> None:
    bench = Bench(mixture(canary(50)), {"w1": worker(A)})
    waiting = asyncio.create_task(told(bench, outcome(bench, "s", 3), outcome(bench, "t", 2)))
    await asyncio.sleep(0)
    bench.offer(replace(mixture(canary(50)), epoch=3))

    assert await waiting == Reported(2, ())


@pytest.mark.parametrize("outcomes", [0, 1])
async def test_another_mixtures_message_is_refused_whole(outcomes: int) -> None:
    bench = Bench(mixture(canary(50)), {"w1": worker(A)})
    some = [outcome(bench, "s", 1)] * outcomes

    with pytest.raises(Refused, match="mixture is 'big'") as caught:
        await bench.engine.report(ReportOutcomeRequest(mixture="big", outcomes=some))
    assert caught.value.code is Code.FAILED_PRECONDITION


async def test_a_long_message_delays_no_request() -> None:
    bench = Bench(mixture(canary(50)), {"w1": worker(A, B, C)})
    many = [outcome(bench, f"s{number}", 1) for number in range(MAX_OUTCOMES)]
    message = ReportOutcomeRequest(mixture="tiny", outcomes=many)

    reporting = asyncio.create_task(bench.engine.report(message))
    await asyncio.sleep(0)
    await bench.dispatch([[1, 2]])

    assert not reporting.done()
    assert (await reporting).accepted == MAX_OUTCOMES


async def test_sessions_that_the_router_knows_as_degraded_are_no_evidence() -> None:
    bench = Bench(mixture(canary(50)), {"w1": worker(A)})
    answer = await bench.dispatch([[1, 2]])
    assert answer.fates[0].degraded
    token = answer.fates[0].token
    one = SessionOutcome(session="s", start_token=token, report=1, tokens=3, loss_bits=1.0)

    assert await told(bench, one) == Reported(0, ())

    bench.offer(taken_back(2))
    assert list(bench.engine.outcomes.sums(View.of(bench.table))) == []
