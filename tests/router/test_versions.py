"""Which version answers when it matters: forced ones for evaluation, and none that is revoked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from moe_core.rollout import Version
from moe_core.rows import Role
from moe_core.table import Rung
from moe_router.flight import Waiter
from moe_router.message import Message
from moe_router.refusal import Code
from moeops.v1.router_pb2 import ForcedVersion, SequenceRows
from tests.fakes.links import FakeWorker, compute, refuse, reset
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
from tests.support.tables import expert


def sequence(session: str, *versions: tuple[str, Version]) -> SequenceRows:
    forced = [ForcedVersion(expert_id=name, sha256=v.sha256) for name, v in versions]
    return SequenceRows(session=session, rows=1, forced=forced)


@pytest.mark.parametrize("weight", [0, 50, 100])
async def test_forced_versions_answer_their_sequence_whatever_its_pins_say(weight: int) -> None:
    bench = Bench(mixture(canary(weight)), {"w1": worker(A, B, C, A2)})
    plain = values(await bench.dispatch([[0, 1]], sessions=[sequence("x")]))

    answer = await bench.dispatch(
        [[0, 1]] * 3,
        sessions=[sequence("x", ("a", A2)), sequence("x"), sequence("x", ("a", A), ("b", B))],
    )

    assert values(answer) == [9.0, *plain, 1.5]
    assert rungs(answer) == []
    assert bench.links.sent == 2, "forced rows go in the same message"


async def test_a_forced_version_may_be_answered_by_a_replica() -> None:
    workers = {"w1": worker(A2, act=reset), "w2": worker(A2), "w3": worker(A, B, C)}
    bench = Bench(mixture(canary(0)), workers)

    answer = await bench.dispatch([[0, 1]], sessions=[sequence("x", ("a", A2))])

    assert values(answer) == [9.0]
    assert rungs(answer) == [(Rung.REPLICA, "a", 1)]


NAN = FakeWorker({A2.sha256: float("nan")})


@pytest.mark.parametrize(
    ("new", "code"),
    [
        pytest.param(worker(A2, act=reset), Code.UNAVAILABLE, id="gone"),
        pytest.param(worker(), Code.UNAVAILABLE, id="never there"),
        pytest.param(NAN, Code.UNAVAILABLE, id="not finite"),
        pytest.param(worker(A2, act=refuse(8)), Code.RESOURCE_EXHAUSTED, id="full"),
    ],
)
async def test_nothing_else_answers_for_a_forced_version(new: FakeWorker, code: Code) -> None:
    content = mixture(replace(canary(0), backup="c"), expert("dense", D, role=Role.DENSE))
    bench = Bench(content, {"w1": new, "w2": worker(A, B, C, D)})

    refused = await bench.refused([[0, 1]], sessions=[sequence("x", ("a", A2))])

    assert refused.code is code
    if code is Code.UNAVAILABLE:
        assert f"expert 'a' of layer 0 at the forced version {A2.sha256}" in refused.message


def revoke_first(bench: Bench) -> Any:
    """Return a deed: the candidate is taken back, then the answer comes."""

    def act(it: FakeWorker, message: Message, waiter: Waiter) -> None:
        bench.offer(taken_back(2))
        compute(it, message, waiter)

    return act


async def test_a_late_answer_of_a_revoked_version_is_counted_and_not_used() -> None:
    bench = Bench(mixture(canary()), {"w1": worker(A2), "w2": worker(A, B, C)})
    bench.links.workers["w1"].act = revoke_first(bench)

    answer = await bench.dispatch([[0, 1]])

    assert values(answer) == [1.5]
    assert rungs(answer) == [(Rung.STABLE, "a", 1)]
    assert not answer.fates[0].degraded
    assert (bench.tally(A2).rows, bench.tally(A2).errors) == (1, {})
    assert bench.tally(A2).last_used_s is None


async def test_an_answer_is_given_up_when_its_version_is_revoked_before_the_last_one() -> None:
    bench = Bench(mixture(canary()), {"w1": worker(A2), "w2": worker(B, C), "w3": worker(A)})
    bench.links.workers["w2"].act = revoke_first(bench)

    answer = await bench.dispatch([[0, 1], [0, 2]])

    assert values(answer) == [1.5, 2.5]
    assert rungs(answer) == [(Rung.STABLE, "a", 2)]
    assert bench.links.workers["w3"].seen == [(A.sha256, 2)]
    assert answer.epoch == 2, "by the table that took it"


async def test_what_a_revoked_version_answered_leaves_no_trace() -> None:
    bench = Bench(mixture(canary()), {"w1": worker(A2), "w2": worker(B, C)})
    bench.links.workers["w2"].act = revoke_first(bench)

    answer = await bench.dispatch([[0, 1]], weights=[[0.75, 0.25]])

    assert values(answer) == [2.0]
    assert rungs(answer) == [(Rung.RENORMALISE, "a", 1)]


async def test_a_rollback_fails_no_request_under_a_ladder_without_stable() -> None:
    bench = Bench(
        mixture(canary(), ladder=(Rung.REPLICA,)), {"w1": worker(A2), "w2": worker(A, B, C)}
    )
    bench.links.workers["w1"].act = revoke_first(bench)

    assert values(await bench.dispatch([[0, 1]])) == [1.5]


async def test_a_forced_version_revoked_meanwhile_refuses_and_then_says_why() -> None:
    bench = Bench(mixture(canary(0)), {"w1": worker(A2), "w2": worker(A, B, C)})
    bench.links.workers["w1"].act = revoke_first(bench)
    sessions = [sequence("x", ("a", A2))]

    meanwhile = await bench.refused([[0, 1]], sessions=sessions)
    afterwards = await bench.refused([[0, 1]], sessions=sessions)

    assert meanwhile.code is Code.UNAVAILABLE
    assert afterwards.code is Code.FAILED_PRECONDITION
