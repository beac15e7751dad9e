"""Whatever a client says to a router: a sentence, or its own rows; and others go on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import HealthCheck, given, settings

from moe_core.combine import combine
from moeops.v1.router_pb2 import DispatchRequest, RowsResponse, SequenceRows
from tests.fuzz.damage import CORPUS, blows, struck
from tests.router.test_service import TABLE, served
from tests.support.dispatching import dispatch_request

WITHIN_S = 30.0
FACTORS = np.array([1.0, 2.0], np.float32)  # of the experts that the gate lists


@dataclass
class Edge:
    """A router in a thread of its own; what is said to it is not made by its protos."""

    channel: grpc.Channel

    def say(self, *messages: bytes) -> tuple[list[RowsResponse], grpc.StatusCode, str]:
        """Say these messages on one stream; return what was answered and how it ended."""
        method: Any = self.channel.stream_stream(
            "/moeops.v1.Router/Dispatch", response_deserializer=RowsResponse.FromString
        )
        call: Any = method(iter(messages), timeout=WITHIN_S)
        found: list[RowsResponse] = []
        try:
            for one in call:
                found.append(one)  # noqa: PERF402  (what came before the end counts)
        except grpc.RpcError:
            pass
        answers = [one for one in found if one.request_id or one.HasField("failure")]
        return answers, call.code(), call.details()


@pytest.fixture(scope="module")
def edge() -> Iterator[Edge]:
    loop, address, over = asyncio.new_event_loop(), Future[str](), asyncio.Event()

    async def run() -> None:
        async with served() as it:
            address.set_result(it.address)
            await over.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),))
    thread.start()
    with grpc.insecure_channel(address.result(WITHIN_S)) as channel:
        yield Edge(channel)
    loop.call_soon_threadsafe(over.set)
    thread.join()
    loop.close()


def question(seed: int = 0, sessions: Sequence[SequenceRows] = ()) -> DispatchRequest:
    experts = [[0, 1], [1, 0], [1, 1]]
    return dispatch_request(TABLE, experts, seed=seed, sessions=sessions or None)


def right(message: DispatchRequest) -> bytes:
    """Return what the rows of a message come to, by nothing but that message."""
    shape = -1, TABLE.hidden_size
    hidden = np.frombuffer(message.hidden, np.float32).reshape(shape)
    experts = np.frombuffer(message.expert_index, np.int32).reshape(len(hidden), -1)
    weights = np.frombuffer(message.expert_weights, np.float32).reshape(experts.shape)
    with np.errstate(all="ignore"):
        answers = hidden[:, None, :] * FACTORS[experts][:, :, None]
        return combine(answers, weights, np.dtype(np.float32)).tobytes()


def assert_answered(message: DispatchRequest, answer: RowsResponse) -> None:
    """It is answered with a sentence, or with what its own rows come to."""
    assert answer.request_id == message.request_id
    if answer.HasField("failure"):
        assert answer.failure.message
        assert answer.failure.code != grpc.StatusCode.INTERNAL.value[0], answer.failure.message
        return
    if not any(sequence.degraded for sequence in answer.sequences):
        assert answer.hidden == right(message)


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(blows())
def test_a_damaged_question_is_answered_by_itself_or_ends_its_stream(
    edge: Edge, blows: list[Any]
) -> None:
    before, after = question(1), question(2)
    damaged = struck(question(3).SerializeToString(), blows)
    found, code, why = edge.say(before.SerializeToString(), damaged, after.SerializeToString())

    answers = {one.request_id: one for one in found if one.request_id != 0}
    try:
        message = DispatchRequest.FromString(damaged)
    except DecodeError:
        assert_answered(before, answers[before.request_id])
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert "a message is not what this method takes" in why
        return
    assert code is grpc.StatusCode.OK
    assert len(found) == 3
    if message.request_id in (before.request_id, after.request_id):
        return  # by the damage it has another's number: nobody can tell their answers apart
    (own,) = (one for one in found if one.request_id == message.request_id)
    assert_answered(message, own)
    assert_answered(before, answers[before.request_id])
    assert_answered(after, answers[after.request_id])


@pytest.mark.parametrize("data", CORPUS)
def test_what_is_no_question_hurts_nobody_else(edge: Edge, data: bytes) -> None:
    edge.say(data)
    message = question()
    (answer,), code, _ = edge.say(message.SerializeToString())

    assert code is grpc.StatusCode.OK
    assert answer.hidden == right(message)


def test_messages_without_an_id_do_not_use_a_stream_up(edge: Edge) -> None:
    nameless = question()
    nameless.request_id = 0
    message = question()
    found, code, _ = edge.say(*[nameless.SerializeToString()] * 300, message.SerializeToString())

    assert code is grpc.StatusCode.OK
    assert len(found) == 301
    assert found[-1].hidden == right(message) or any(one.hidden == right(message) for one in found)


def test_sequences_without_end_are_refused_before_they_are_read(edge: Edge) -> None:
    message = question(sessions=[SequenceRows(session="s", rows=1)] * 100_000)
    (answer,), _, _ = edge.say(message.SerializeToString())

    assert "sequences are 100000; one message may have 4096" in answer.failure.message


def test_a_message_that_is_too_large_ends_its_stream_with_a_sentence(edge: Edge) -> None:
    found, code, why = edge.say(bytes(5 << 20))

    assert found == []
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "larger than max" in why
