"""A caller's own trace goes with its requests, whichever thread sends them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler

from moe_client import RouterClient as BlockingClient
from moe_client.aio import RouterClient
from moe_core.tracing import Context
from tests.client.test_transport import question
from tests.fakes.router import FakeRouter, in_a_thread


@pytest.fixture
async def router() -> AsyncIterator[FakeRouter]:
    async with FakeRouter() as fake:
        yield fake


async def test_without_a_span_nothing_is_said(router: FakeRouter) -> None:
    async with RouterClient(router.address, mixture="m") as client:
        await client.dispatch(*question())
        await client.route(question()[0])
    assert [one.traceparent for one in router.requests] == ["", ""]


@pytest.mark.parametrize(
    ("sampler", "sampled"),
    [
        pytest.param(ALWAYS_ON, True, id="sampled"),
        pytest.param(ALWAYS_OFF, False, id="not sampled"),
    ],
)
async def test_the_span_that_a_caller_is_in_goes_with_its_requests(
    router: FakeRouter, sampler: Sampler, sampled: bool
) -> None:
    tracer = TracerProvider(sampler=sampler, shutdown_on_exit=False).get_tracer("caller")
    async with RouterClient(router.address, mixture="m") as client:
        with tracer.start_as_current_span("forward") as span:
            await client.dispatch(*question())
            await client.route(question()[0])
        await client.route(question()[0])
    known = span.get_span_context()
    said = Context(known.trace_id, known.span_id, sampled).traceparent
    assert [one.traceparent for one in router.requests] == [said, said, ""]


def test_a_client_with_a_thread_of_its_own_says_the_span_of_the_callers_thread() -> None:
    tracer = TracerProvider(sampler=ALWAYS_ON, shutdown_on_exit=False).get_tracer("caller")
    with (
        in_a_thread(FakeRouter()) as router,
        BlockingClient(router.address, mixture="m") as client,
        tracer.start_as_current_span("forward"),
    ):
        client.dispatch(*question())
        known = trace.get_current_span().get_span_context()
        (request,) = router.requests
        said = Context(known.trace_id, known.span_id).traceparent
        assert request.traceparent == said
