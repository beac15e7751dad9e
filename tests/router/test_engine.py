"""The engine with workers in memory: every rung of the ladder, budgets, sessions, revocation."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from moe_core.rollout import Outcome, Version, WeightSince
from moe_core.rows import Role
from moe_core.table import Rung, Table
from moe_router.engine import Answer, Engine, Limits
from moe_router.ladder import Cause
from moe_router.refusal import Code, Refused
from moe_router.sessions import Start, Taken
from moe_router.tables import Tables
from moeops.v1.router_pb2 import DispatchRequest, RouteRequest, SequenceRows
from moeops.v1.types_pb2 import DTYPE_FLOAT32
from tests.fakes.links import FakeWorker, garble, refuse, reset, run_late
from tests.router.bench import (
    A2,
    A,
    B,
    Bench,
    C,
    D,
    canary,
    mixture,
    rungs,
    taken_back,
    values,
    worker,
)
from tests.support.dispatching import dispatch_request
from tests.support.tables import UID, expert


async def test_a_healthy_mixture_combines_what_its_experts_answer() -> None:
    bench = Bench(mixture(), {"w1": worker(A, B), "w2": worker(C)})

    answer = await bench.dispatch([[0, 1], [1, 2]], weights=[[0.75, 0.25], [0.5, 0.5]])

    assert values(answer) == [0.75 * 1 + 0.25 * 2, 0.5 * 2 + 0.5 * 4]
    assert rungs(answer) == []
    assert answer.epoch == 1
    assert bench.links.sent == 2, "one message per worker, not one per expert"
    assert bench.tally(B).rows == 2
    assert bench.tally(B).last_used_s == 0.0


async def test_a_broken_link_is_answered_by_another_replica() -> None:
    bench = Bench(mixture(), {"w1": worker(A, B, act=reset), "w2": worker(A, B)})

    answer = await bench.dispatch([[0, 1]])

    assert values(answer) == [1.5]
    assert rungs(answer) == [(Rung.REPLICA, "a", 1), (Rung.REPLICA, "b", 1)]
    assert not answer.fates[0].degraded
    assert answer.fates[0].outcome.lost == 0
    assert bench.tally(A).errors == {Cause.BROKEN: 1}


@pytest.mark.parametrize(
    ("deed", "cause"),
    [
        pytest.param(run_late, Cause.DEADLINE, id="too slow"),
        pytest.param(refuse(5), Cause.REFUSED, id="does not hold it"),
        pytest.param(refuse(8), Cause.REFUSED, id="has too much to do"),
        pytest.param(refuse(4), Cause.DEADLINE, id="past the deadline by its own word"),
        pytest.param(garble, Cause.REFUSED, id="bytes that do not fit"),
    ],
)
async def test_whatever_goes_wrong_another_replica_answers(deed: Any, cause: Cause) -> None:
    bench = Bench(mixture(), {"w1": worker(A, B, act=deed), "w2": worker(A, B)})

    answer = await bench.dispatch([[0, 1]])

    assert values(answer) == [1.5]
    assert {rung for rung, _, _ in rungs(answer)} == {Rung.REPLICA}
    assert bench.tally(A).errors == {cause: 1}


async def test_a_candidate_answers_the_sessions_in_its_weight() -> None:
    bench = Bench(mixture(canary()), {"w1": worker(A, B, C, A2)})

    answer = await bench.dispatch([[0, 1]])

    assert values(answer) == [(16 + 2) / 2]
    assert rungs(answer) == []


async def test_stable_answers_for_a_candidate_that_is_gone_and_that_is_not_degraded() -> None:
    workers = {"w1": worker(A2, act=reset), "w2": worker(A, B, C)}
    bench = Bench(mixture(canary()), workers)

    answer = await bench.dispatch([[0, 1]])

    assert values(answer) == [1.5]
    assert rungs(answer) == [(Rung.STABLE, "a", 1)]
    assert not answer.fates[0].degraded
    assert bench.tally(A2).errors == {Cause.BROKEN: 1}


async def test_answers_that_are_not_finite_are_not_used_and_no_replica_is_asked_again() -> None:
    workers = {name: FakeWorker({A2.sha256: float("nan")}) for name in ("w1", "w2")}
    bench = Bench(mixture(canary()), {**workers, "w3": worker(A, B, C)})

    answer = await bench.dispatch([[0, 1], [0, 2]])

    assert values(answer) == [1.5, 2.5]
    assert rungs(answer) == [(Rung.STABLE, "a", 2)]
    assert [len(w.seen) for w in workers.values()].count(1) == 1
    assert bench.tally(A2).errors == {Cause.NON_FINITE: 1}
    assert bench.tally(A2).nonfinite_rows == 2
    assert bench.tally(A2).requests == 1


def full(**options: Any) -> Table:
    """Expert a has a backup and the layer a dense stand-in."""
    dense = expert("dense", D, role=Role.DENSE)
    return mixture(expert("a", A, backup="c"), dense, **options)


@pytest.mark.parametrize(
    ("held", "ladder", "expected", "rung"),
    [
        pytest.param((B, C, D), None, (4 * 0.75 + 2 * 0.25), Rung.BACKUP, id="backup"),
        pytest.param((B, D), None, (8 * 0.75 + 2 * 0.25), Rung.DENSE, id="dense"),
        pytest.param((B,), None, 2.0, Rung.RENORMALISE, id="renormalise keeps the sum"),
        pytest.param((B,), (Rung.RESIDUAL,), 2 * 0.25, Rung.RESIDUAL, id="residual if so ordered"),
        pytest.param(
            (B, C, D), (Rung.DENSE, Rung.BACKUP), 6.5, Rung.DENSE, id="dense first if so ordered"
        ),
    ],
)
async def test_an_expert_without_workers_climbs_the_ladder(
    held: tuple[Version, ...], ladder: tuple[Rung, ...] | None, expected: float, rung: Rung
) -> None:
    bench = Bench(full(ladder=ladder), {"w1": worker(*held)})

    answer = await bench.dispatch([[0, 1]], weights=[[0.75, 0.25]])

    assert values(answer) == [pytest.approx(expected)]
    assert rungs(answer) == [(rung, "a", 1)]
    fate = answer.fates[0]
    assert fate.degraded
    assert fate.outcome.lost == 0.75
    assert fate.outcome.mass == 1.0


async def test_with_no_worker_at_all_the_residual_alone_is_left() -> None:
    bench = Bench(full(), {})

    answer = await bench.dispatch([[0, 1], [1, 2]])

    assert values(answer) == [0.0, 0.0]
    assert sum(rows for rung, _, rows in rungs(answer) if rung is Rung.RESIDUAL) == 4


async def test_one_token_may_renormalise_while_another_has_nothing_left() -> None:
    bench = Bench(mixture(), {"w1": worker(B)})

    answer = await bench.dispatch([[0, 1], [0, 2]])

    assert values(answer) == [2.0, 0.0]
    assert sorted(rungs(answer)) == sorted(
        [(Rung.RENORMALISE, "a", 1), (Rung.RESIDUAL, "a", 1), (Rung.RESIDUAL, "c", 1)]
    )


async def test_a_rung_behind_renormalise_serves_tokens_that_cannot_renormalise() -> None:
    dense = expert("dense", D, role=Role.DENSE)
    bench = Bench(mixture(dense, ladder=(Rung.RENORMALISE, Rung.DENSE)), {"w1": worker(B, D)})

    answer = await bench.dispatch([[0, 1], [0, 2]])

    assert values(answer) == [2.0, 8.0]


async def test_a_ladder_that_offers_nothing_fails_the_request_and_names_the_expert() -> None:
    bench = Bench(mixture(ladder=(Rung.REPLICA,)), {"w1": worker(B)})

    refused = await bench.refused([[0, 1]])

    assert refused.code is Code.UNAVAILABLE
    assert "expert 'a' of layer 0" in refused.message
    assert bench.engine.counters.failed_requests == 1


async def test_overload_is_no_reason_to_answer_worse() -> None:
    bench = Bench(full(), {"w1": worker(A, act=refuse(8)), "w2": worker(B, C, D)})

    refused = await bench.refused([[0, 1]])

    assert refused.code is Code.RESOURCE_EXHAUSTED
    assert refused.retry_after_ms > 0


async def test_past_the_budget_of_a_session_requests_fail_and_name_expert_and_share() -> None:
    bench = Bench(mixture(percent=25), {"w1": worker(A, B)})

    refusals = []
    for _ in range(40):
        try:
            await bench.dispatch([[0, 2]], weights=[[0.5, 0.5]])
        except Refused as refused:
            refusals.append(refused)

    assert refusals[0].code is Code.UNAVAILABLE
    assert "expert 'c'" in refusals[0].message
    assert "50.0 %" in refusals[0].message
    served = 40 - len(refusals)
    assert served * 0.5 <= served * 0.25 + 16 * 0.25, "lost mass is bounded by share and burst"
    healthy = await bench.dispatch([[0, 1]])
    assert healthy.fates[0].degraded, "a session that was degraded stays marked"
    other = await bench.dispatch([[0, 1]], sessions=[SequenceRows(session="new", rows=1)])
    assert not other.fates[0].degraded


async def test_with_a_budget_of_nothing_no_degraded_answer_leaves() -> None:
    bench = Bench(mixture(percent=0), {"w1": worker(A, B)})

    refused = await bench.refused([[0, 2]])

    assert refused.code is Code.UNAVAILABLE
    assert "maxDegradedPercent 0" in refused.message
    assert values(await bench.dispatch([[0, 1]])) == [1.5]


async def test_rows_not_yet_sent_never_go_to_a_version_revoked_meanwhile() -> None:
    dying, sibling = worker(A2, act=reset), worker(A2)
    bench = Bench(mixture(canary()), {"w1": dying, "w2": sibling, "w3": worker(A, B, C)})
    bench.links.load = {"w2": 100}
    bench.links.before = lambda: bench.offer(taken_back(2))

    answer = await bench.dispatch([[0, 1]])

    assert len(dying.seen) == 1
    assert sibling.seen == [], "the other replica of a revoked version gets nothing"
    assert values(answer) == [1.5]
    assert rungs(answer) == [(Rung.STABLE, "a", 1)]
    assert answer.fates[0].repinned == (Taken("a", 2),), "its session has lost that version"
    assert answer.epoch == 2, "by the table that took it"


async def test_a_request_keeps_the_table_that_it_began_with() -> None:
    bench = Bench(mixture(canary()), {"w": worker(A, A2, B, C)})
    bench.links.before = lambda: bench.offer(replace(bench.table, epoch=2))

    answer = await bench.dispatch([[0, 1]])

    assert (answer.epoch, values(answer)) == (1, [9.0])
    assert answer.fates[0].repinned == ()


async def test_what_a_session_loses_while_it_is_answered_is_told_with_that_answer() -> None:
    """It may be the last of a call: then nobody would be told that it is neither version's."""
    bench = Bench(mixture(canary()), {"w": worker(A, A2, B, C)})
    token = (await bench.dispatch([[0, 1]])).fates[0].token
    sessions = [SequenceRows(session="s", rows=1, start_token=token)]
    bench.links.before = lambda: bench.offer(taken_back(2))

    answer = await bench.dispatch([[0, 1]], sessions=sessions)
    later = await bench.dispatch([[0, 1]], sessions=sessions)

    assert values(answer) == values(later) == [1.5]
    assert answer.fates[0].repinned == (Taken("a", 2),)
    assert later.fates[0].repinned == ()
    assert (answer.epoch, later.epoch) == (2, 2)


async def test_that_a_version_is_only_gone_the_next_answer_tells() -> None:
    trial = canary(0).rollout
    assert trial is not None
    weights = (*trial.weights, WeightSince(2, 100))
    done = replace(trial, outcome=Outcome.PROMOTED, weights=weights)
    kept = replace(expert("a", A2), previous=A, rollout=done)
    bench = Bench(replace(mixture(kept), epoch=2), {"w": worker(A, A2, B, C)})
    token = Start(bench.table.uid, 1).to_token("s")
    sessions = [SequenceRows(session="s", rows=1, start_token=token)]
    gone = replace(mixture(replace(kept, previous=None)), epoch=3)
    bench.links.before = lambda: bench.offer(gone)

    answer = await bench.dispatch([[0, 1]], sessions=sessions)
    later = await bench.dispatch([[0, 1]], sessions=sessions)

    assert (values(answer), answer.epoch, answer.fates[0].repinned) == ([1.5], 2, ())
    assert (values(later), later.fates[0].repinned) == ([9.0], (Taken("a", 2),))


async def test_a_session_on_a_revoked_version_is_told_once_that_it_was_repinned() -> None:
    bench = Bench(mixture(canary()), {"w1": worker(A, B, C, A2)})
    first = await bench.dispatch([[0, 1]])
    token = first.fates[0].token
    bench.offer(taken_back(2))
    sessions = [SequenceRows(session="s", rows=1, start_token=token)]

    second = await bench.dispatch([[0, 1]], sessions=sessions)
    third = await bench.dispatch([[0, 1]], sessions=sessions)
    other = await bench.dispatch([[0, 1]], sessions=[SequenceRows(session="n", rows=1)])

    assert second.fates[0].repinned == (Taken("a", 2),)
    assert values(second) == [1.5]
    assert third.fates[0].repinned == ()
    assert other.fates[0].repinned == ()
    assert second.fates[0].token == token


async def test_sequences_of_one_message_each_get_their_own_version() -> None:
    bench = Bench(mixture(canary(50)), {"w1": worker(A, B, C, A2)})
    sessions = [SequenceRows(session=f"s{n}", rows=1) for n in range(64)]

    answer = await bench.dispatch([[0, 1]] * 64, sessions=sessions)

    seen = set(values(answer))
    assert seen == {1.5, 9.0}
    again = [(await bench.dispatch([[0, 1]], sessions=[one])) for one in sessions]
    assert [values(one)[0] for one in again] == values(answer)


async def test_a_token_of_a_later_epoch_waits_for_that_table() -> None:
    bench = Bench(mixture(), {"w1": worker(A, B, C)})
    uid = bench.table.uid
    request = dispatch_request(
        bench.table,
        [[0, 1]],
        sessions=[SequenceRows(session="s", rows=1, start_token=Start(uid, 2).to_token("s"))],
    )

    async def publish() -> None:
        bench.offer(replace(bench.table, epoch=2))

    answer, _ = await asyncio.gather(bench.engine.dispatch(request), publish())

    assert answer.epoch == 2


@pytest.mark.parametrize(
    ("token", "code", "words"),
    [
        pytest.param(
            Start("other", 1).to_token("s"), Code.FAILED_PRECONDITION, "'other'", id="another table"
        ),
        pytest.param(
            Start(UID, 9).to_token("s"), Code.UNAVAILABLE, "epoch 9", id="a table never seen"
        ),
        pytest.param(
            Start(UID, 1).to_token("t"),
            Code.INVALID_ARGUMENT,
            "session 's'",
            id="of another session",
        ),
        pytest.param(
            Start(UID, 9).to_token("t"),
            Code.INVALID_ARGUMENT,
            "session 's'",
            id="forged, to wait for",
        ),
        pytest.param(b"1:x:1", Code.INVALID_ARGUMENT, "start_token", id="another format"),
        pytest.param(b"2:x:1", Code.INVALID_ARGUMENT, "start_token", id="without a seal"),
        pytest.param(b"\xff\xfe", Code.INVALID_ARGUMENT, "start_token", id="no text"),
        pytest.param(b"2:x:-4:0", Code.INVALID_ARGUMENT, "start_token", id="no epoch"),
        pytest.param(b"2" * 300, Code.INVALID_ARGUMENT, "start_token", id="too long"),
    ],
)
async def test_a_token_that_cannot_be_honoured_is_refused(
    token: bytes, code: Code, words: str
) -> None:
    bench = Bench(mixture(), {"w1": worker(A, B, C)})

    refused = await bench.refused(
        [[0, 1]], sessions=[SequenceRows(session="s", rows=1, start_token=token)]
    )

    assert refused.code is code
    assert words in refused.message


async def test_without_a_table_requests_are_refused_with_the_reason() -> None:
    bench = Bench(mixture(), {})
    empty = Engine(Tables("tiny", bench.clock), bench.links, bench.gates, bench.clock, Limits())

    with pytest.raises(Refused, match="no routing table yet") as caught:
        await empty.dispatch(dispatch_request(bench.table, [[0, 1]]))
    assert caught.value.code is Code.UNAVAILABLE


async def test_more_rows_than_may_be_under_way_are_shed_with_a_hint() -> None:
    bench = Bench(mixture(), {"w1": worker(A, B, C)}, limits=Limits(rows_in_flight=3))
    requests = [dispatch_request(bench.table, [[0, 1]] * 2) for _ in range(2)]

    results = await asyncio.gather(
        *(bench.engine.dispatch(r) for r in requests), return_exceptions=True
    )

    refused = [r for r in results if isinstance(r, Refused)]
    assert [r.code for r in refused] == [Code.RESOURCE_EXHAUSTED]
    assert refused[0].retry_after_ms > 0
    assert isinstance(await bench.engine.dispatch(requests[1]), Answer), "there is room again"
    huge = await bench.refused([[0, 1]] * 4)
    assert huge.code is Code.INVALID_ARGUMENT


async def test_route_applies_the_gate_of_the_table() -> None:
    content = mixture()
    weight = np.eye(3, 4, dtype=np.float32)
    stable = content.gates[0].stable.sha256
    bench = Bench(content, {"w1": worker(A, B, C)}, gates={stable: weight})
    hidden = np.array([[2.0, 0.0, 1.0, 0.0]], np.float32)
    request = RouteRequest(
        request_id=1,
        mixture="tiny",
        dtype=DTYPE_FLOAT32,
        hidden_size=4,
        sequences=[SequenceRows(session="s", rows=1)],
        hidden=hidden.tobytes(),
    )

    answer = await bench.engine.route(request)

    share = np.exp([2.0, 1.0]) / np.exp([2.0, 1.0]).sum()
    np.testing.assert_allclose(answer.hidden, hidden * (share[0] * 1 + share[1] * 4), rtol=1e-6)


async def test_time_that_is_nearly_over_is_not_spent_on_asking() -> None:
    bench = Bench(mixture(), {"w1": worker(A, B, C, act=run_late), "w2": worker(A, B, C)})

    def pass_time() -> None:
        bench.now_s += 1.0

    bench.links.before = pass_time
    request: DispatchRequest = dispatch_request(bench.table, [[0, 1]], deadline_ms=1010)

    answer = await bench.engine.dispatch(request)

    assert {rung for rung, _, _ in rungs(answer)} == {Rung.RESIDUAL}
    assert bench.links.sent == 1
