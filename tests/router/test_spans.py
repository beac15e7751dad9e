"""What a sampled request tells of its attempts, over workers in memory."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from moe_core.rows import OnCold
from moe_core.table import Rung
from moe_router.flight import Waiter
from moe_router.message import Message
from moe_router.refusal import Refused
from tests.fakes.links import Deed, FakeWorker, compute, garble, refuse, reset, run_late
from tests.fakes.spans import FakeSpan
from tests.router.bench import A2, A, B, Bench, C, canary, mixture, taken_back, worker
from tests.support.dispatching import dispatch_request
from tests.support.tables import expert


async def traced(bench: Bench, experts: list[list[int]], **options: Any) -> FakeSpan:
    """Ask, and return the request's span; all under it have ended then."""
    span = FakeSpan()
    options.setdefault("hidden", np.ones((len(experts), 4)))
    await bench.engine.dispatch(dispatch_request(bench.table, experts, **options), span)
    assert {one.failure is None for one in span.children} == {False}, "all have ended"
    return span


def told(span: FakeSpan, *keys: str) -> list[tuple[Any, ...]]:
    return [tuple(one.attributes[f"moe.{key}"] for key in keys) for one in span.all("attempt")]


async def test_attempts_name_version_worker_and_what_the_worker_is_told_of_them() -> None:
    seen: list[Message] = []

    def look(one: FakeWorker, message: Message, waiter: Waiter) -> None:
        seen.append(message)
        compute(one, message, waiter)

    bench = Bench(mixture(canary()), {"w": worker(A, A2, B, C, act=look)})
    span = await traced(bench, [[0, 1], [0, 1]])

    assert [one.name for one in span.children] == ["gate", "attempt", "attempt", "plan", "combine"]
    names = told(span, "worker", "expert", "version", "sha256", "rows", "rung", "outcome")
    assert names == [
        ("w", "a", "a-v2", A2.sha256, 2, "", "Answered"),
        ("w", "b", "b-v1", B.sha256, 2, "", "Answered"),
    ]
    (message,) = seen
    assert message.trace is not None
    spans = tuple(one.context.span_id for one in span.all("attempt"))
    assert (message.trace.trace_id, message.trace.spans) == (1, spans)


async def test_a_request_that_is_not_traced_tells_workers_nothing() -> None:
    seen: list[Message] = []

    def look(one: FakeWorker, message: Message, waiter: Waiter) -> None:
        seen.append(message)
        compute(one, message, waiter)

    bench = Bench(mixture(), {"w": worker(A, B, C, act=look)})
    await bench.dispatch([[0, 1]])
    assert [message.trace for message in seen] == [None]


@pytest.mark.parametrize(
    ("deed", "outcome"),
    [
        pytest.param(reset, "Broken", id="the link breaks"),
        pytest.param(run_late, "Deadline", id="its time passes"),
        pytest.param(refuse(8), "Refused", id="too much waits there"),
        pytest.param(garble, "Refused", id="an answer that does not fit"),
    ],
)
async def test_an_attempt_says_why_it_gave_nothing_and_who_answered_instead(
    deed: Deed, outcome: str
) -> None:
    bench = Bench(mixture(), {"v": worker(A, act=deed), "w": worker(A, B, C)})
    bench.links.load = {"w": 100}
    span = await traced(bench, [[0, 1]])

    of_a = [one for one in told(span, "expert", "worker", "rung", "outcome") if one[0] == "a"]
    assert of_a == [("a", "v", "", outcome), ("a", "w", "Replica", "Answered")]
    failures = [bool(one.failure) for one in span.all("attempt")]
    assert sum(failures) == 1
    assert span.all("combine")[0].attributes["moe.rungs"] == ["Replica/a"]
    assert span.all("combine")[0].attributes["moe.degraded_pairs"] == 0


async def test_a_wait_for_an_expert_is_told_with_its_end() -> None:
    sleeper = replace(expert("a", A), on_cold=OnCold.WAIT)
    bench = Bench(mixture(sleeper), {"w": worker(B, C)})
    asked = asyncio.create_task(traced(bench, [[0, 1]]))
    await bench.settle()
    bench.now_s = 3.0
    bench.links.workers["awake"] = worker(A)
    bench.engine.changed()
    (wait,) = (await asked).all("wait")

    keys = ("expert", "version", "rows", "outcome")
    assert [wait.attributes[f"moe.{key}"] for key in keys] == ["a", "a-v1", 1, "Served"]


async def test_answers_that_are_not_finite_are_told_and_whom_another_expert_stood_in_for() -> None:
    bench = Bench(
        mixture(expert("a", A, backup="b"), ladder=(Rung.BACKUP,)),
        {"w": FakeWorker({A.sha256: float("nan"), B.sha256: 2.0, C.sha256: 4.0})},
    )
    span = await traced(bench, [[0, 2]])

    a, c, instead = span.all("attempt")
    assert (a.attributes["moe.outcome"], c.attributes["moe.outcome"]) == ("NonFinite", "Answered")
    assert instead.attributes["moe.expert"] == "b"
    assert instead.attributes["moe.for"] == "a"
    assert "moe.for" not in a.attributes
    assert span.all("combine")[0].attributes["moe.degraded_pairs"] == 1


async def test_an_answer_of_a_version_that_was_taken_back_meanwhile_is_told_as_revoked() -> None:
    bench = Bench(mixture(canary()), {"w": worker(A, A2, B, C)})
    bench.links.before = lambda: bench.offer(taken_back(2))
    span = await traced(bench, [[0, 1]])
    of_a = [one for one in told(span, "expert", "version", "outcome") if one[0] == "a"]
    assert of_a == [("a", "a-v2", "Revoked"), ("a", "a-v1", "Answered")]


async def test_a_hedge_is_told_and_so_is_the_attempt_that_it_overtook() -> None:
    held: list[tuple[FakeWorker, Message, Waiter]] = []

    def slow(one: FakeWorker, message: Message, waiter: Waiter) -> None:
        held.append((one, message, waiter))
        waiter.late(message)

    bench = Bench(mixture(), {"v": worker(A, B, act=slow), "w": worker(A, B)})
    span = await traced(bench, [[0, 1]])
    compute(*held[0])  # nobody waits for it any more

    of_a = [one for one in told(span, "expert", "worker", "hedged", "outcome") if one[0] == "a"]
    assert of_a == [("a", "v", False, "Superseded"), ("a", "w", True, "Answered")]
    assert not any(one.failure for one in span.all("attempt"))


async def test_a_refused_request_has_told_what_it_came_to() -> None:
    bench = Bench(mixture(ladder=()), {"w": worker(B, act=reset)})
    span = FakeSpan()
    request = dispatch_request(bench.table, [[1, 2]], hidden=np.ones((1, 4)))
    with pytest.raises(Refused):
        await bench.engine.dispatch(request, span)
    assert span.attributes["moe.layer"] == 0
    assert [one.name for one in span.children if one.failure is not None] == [
        one.name for one in span.children
    ]
    assert "combine" not in {one.name for one in span.children}
