"""The client against routers that answer, refuse, fall silent, break and lie."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable

import grpc
import ml_dtypes
import numpy as np
import pytest

from moe_client import (
    Choice,
    Closed,
    DeadlineExceeded,
    InvalidRequest,
    MalformedAnswer,
    Mismatch,
    MoeError,
    NotFound,
    Overloaded,
    Rows,
    Sequence,
    Unavailable,
)
from moe_client import RouterClient as BlockingClient
from moe_client.aio import RouterClient
from moe_client.retry import Health
from moeops.v1 import router_pb2, types_pb2
from tests.fakes.router import (
    FakeRouter,
    Response,
    answer_after,
    break_stream,
    refuse,
    say_nothing,
    spoil,
)

SHA = "ab" * 32


def question(session: str = "s", rows: int = 3, value: float = 1.0) -> tuple[Rows, Choice]:
    hidden = np.full((rows, 8), value, ml_dtypes.bfloat16)
    index = np.zeros((rows, 2), np.int32)
    weights = np.full((rows, 2), 0.5, np.float32)
    return Rows(1, hidden, (Sequence(session, rows),)), Choice(SHA, index, weights)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
async def router() -> AsyncIterator[FakeRouter]:
    async with FakeRouter() as fake:
        yield fake


@pytest.fixture
async def other() -> AsyncIterator[FakeRouter]:
    async with FakeRouter() as fake:
        yield fake


def first_of(client: RouterClient, *routers: FakeRouter) -> tuple[str, FakeRouter, FakeRouter]:
    """Return a session that prefers the first of two routers, and both in its order."""
    from moe_client.retry import choose

    address = choose(client.health, "s", ())
    one, two = sorted(routers, key=lambda fake: fake.address != address)
    return "s", one, two


async def test_an_answer_comes_back_with_its_bits_and_outcome(router: FakeRouter) -> None:
    async with RouterClient(router.address, mixture="tiny") as client:
        rows, choice = question()
        answer = await client.dispatch(rows, choice, trunk_sha256="t")
    assert answer.hidden.dtype == rows.hidden.dtype
    assert answer.hidden.tobytes() == rows.hidden.tobytes()
    assert answer.epoch == 7
    assert answer.outcomes[0].start_token == b"1:uid:7"
    sent = router.requests[0]
    assert isinstance(sent, router_pb2.DispatchRequest)
    assert (sent.mixture, sent.trunk_sha256, sent.gate_sha256) == ("tiny", "t", SHA)
    assert (sent.layer, sent.hidden_size, sent.top_k) == (1, 8, 2)
    assert (sent.dtype, sent.weights_dtype) == (
        types_pb2.DTYPE_BFLOAT16,
        types_pb2.DTYPE_FLOAT32,
    )
    assert 0 < sent.deadline_ms <= 10_000


async def test_route_leaves_the_choice_to_the_router(router: FakeRouter) -> None:
    async with RouterClient(router.address) as client:
        rows, _ = question()
        answer = await client.route(rows)
    assert answer.hidden.tobytes() == rows.hidden.tobytes()
    assert isinstance(router.requests[0], router_pb2.RouteRequest)


async def test_a_unix_socket_is_an_address_too(tmp_path: object) -> None:
    fake = await FakeRouter().start(f"unix:{tmp_path}/router.sock")
    async with RouterClient(fake.address) as client:
        answer = await client.dispatch(*question())
    await fake.stop()
    assert answer.epoch == 7


async def test_answers_in_another_order_find_their_questions(router: FakeRouter) -> None:
    gate = asyncio.Event()
    router.script = [answer_after(gate)]
    async with RouterClient(router.address) as client:
        slow = asyncio.create_task(client.dispatch(*question(value=1)))
        await until(lambda: len(router.requests) == 1)
        fast = await client.dispatch(*question(value=2))
        assert not slow.done()
        gate.set()
        late = await slow
    assert float(fast.hidden[0, 0]) == 2
    assert float(late.hidden[0, 0]) == 1
    assert router.streams == 1


async def test_many_requests_share_one_stream(router: FakeRouter) -> None:
    async with RouterClient(router.address) as client:
        questions = [question(f"s{i}", value=i) for i in range(100)]
        answers = await asyncio.gather(*(client.dispatch(*q) for q in questions))
    assert [float(a.hidden[0, 0]) for a in answers] == list(range(100))
    assert router.streams == 1


async def test_unavailable_is_tried_again_until_it_answers(router: FakeRouter) -> None:
    unavailable = refuse(grpc.StatusCode.UNAVAILABLE, "no worker for e3")
    router.script = [unavailable, unavailable]
    async with RouterClient(router.address) as client:
        answer = await client.dispatch(*question())
        assert client.retries == 2
    assert answer.epoch == 7
    assert len(router.requests) == 3


async def test_unavailable_to_the_end_says_why_and_how_often(router: FakeRouter) -> None:
    router.script = [refuse(grpc.StatusCode.UNAVAILABLE, "no worker for e3")] * 1000
    async with RouterClient(router.address, timeout_s=0.3) as client:
        with pytest.raises(Unavailable, match=r"no worker for e3 \(after \d+ tries within 0.3 s\)"):
            await client.dispatch(*question())


async def test_what_is_shed_waits_as_long_as_it_is_told(router: FakeRouter) -> None:
    router.script = [refuse(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", retry_after_ms=10_000)]
    async with RouterClient(router.address, timeout_s=0.2) as client:
        with pytest.raises(Overloaded, match="full"):
            await client.dispatch(*question())
    assert len(router.requests) == 1


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.FAILED_PRECONDITION, Mismatch),
        (grpc.StatusCode.INVALID_ARGUMENT, InvalidRequest),
        (grpc.StatusCode.NOT_FOUND, NotFound),
        (grpc.StatusCode.DEADLINE_EXCEEDED, DeadlineExceeded),
        (grpc.StatusCode.INTERNAL, MoeError),
    ],
)
async def test_what_no_other_try_would_change_is_raised_at_once(
    router: FakeRouter, code: grpc.StatusCode, kind: type[MoeError]
) -> None:
    router.script = [refuse(code, "gate ab… is served, not cd…")]
    async with RouterClient(router.address) as client:
        with pytest.raises(kind, match="gate ab… is served") as raised:
            await client.dispatch(*question())
    assert type(raised.value) is kind
    assert raised.value.code is code
    assert raised.value.epoch == 7
    assert len(router.requests) == 1


async def test_a_deadline_without_any_answer(router: FakeRouter) -> None:
    router.script = [say_nothing]
    async with RouterClient(router.address, timeout_s=0.3) as client:
        with pytest.raises(DeadlineExceeded, match=r"no answer from .* within 0.3 s"):
            await client.dispatch(*question())
        assert client.health == {router.address: Health.LIVE}


async def test_a_silent_router_is_left_for_another(router: FakeRouter, other: FakeRouter) -> None:
    async with RouterClient([router.address, other.address]) as client:
        session, silent, speaking = first_of(client, router, other)
        silent.heartbeats = False
        silent.script = [say_nothing]
        answer = await client.dispatch(*question(session))
        assert answer.epoch == 7
        assert client.health[silent.address] is Health.SILENT
        await client.dispatch(*question(session))
        await until(lambda: client.health[silent.address] is Health.LIVE)
        await client.dispatch(*question(session))
    assert len(speaking.requests) == 2
    assert len(silent.requests) == 2


async def test_a_late_answer_of_a_silent_router_still_counts() -> None:
    gate = asyncio.Event()
    router = FakeRouter(heartbeats=False, script=[answer_after(gate), say_nothing])
    async with router, RouterClient(router.address) as client:
        asking = asyncio.create_task(client.dispatch(*question()))
        await until(lambda: client.health[router.address] is Health.SILENT)
        gate.set()
        answer = await asking
        assert client.health[router.address] is Health.LIVE
    assert answer.epoch == 7


async def test_the_only_router_is_asked_anew_when_it_is_silent() -> None:
    router = FakeRouter(heartbeats=False, script=[say_nothing])
    async with router, RouterClient(router.address) as client:
        answer = await client.dispatch(*question())
    assert answer.epoch == 7
    assert router.streams == 2


async def test_a_router_that_nobody_listens_for_is_passed_over(router: FakeRouter) -> None:
    async with RouterClient([f"127.0.0.1:{free_port()}", router.address]) as client:
        answers = [await client.dispatch(*question(f"s{i}")) for i in range(8)]
    assert len(answers) == 8
    assert len(router.requests) == 8


async def test_a_router_that_starts_late_is_found(router: FakeRouter) -> None:
    port = free_port()
    async with RouterClient(f"127.0.0.1:{port}", mixture="tiny") as client:
        asking = asyncio.create_task(client.dispatch(*question()))
        await until(lambda: client.health[f"127.0.0.1:{port}"] is Health.DOWN)
        late = await FakeRouter().start(f"127.0.0.1:{port}")
        answer = await asking
        await late.stop()
    assert answer.epoch == 7


async def test_a_stream_that_breaks_is_begun_again(router: FakeRouter) -> None:
    router.script = [say_nothing, break_stream]
    async with RouterClient(router.address) as client:
        questions = [question("a"), question("b")]
        answers = await asyncio.gather(*(client.dispatch(*q) for q in questions))
    assert [a.epoch for a in answers] == [7, 7]
    assert router.streams == 2
    assert len(router.requests) == 4


async def test_a_router_that_dies_fails_nothing_while_another_lives(
    router: FakeRouter, other: FakeRouter
) -> None:
    async with RouterClient([router.address, other.address]) as client:
        session, dying, living = first_of(client, router, other)
        dying.script = [say_nothing] * 5
        asking = [asyncio.create_task(client.dispatch(*question(session))) for _ in range(5)]
        await until(lambda: len(dying.requests) == 5)
        await dying.stop()
        answers = await asyncio.gather(*asking)
    assert len(answers) == len(living.requests) == 5


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        pytest.param(
            lambda r: setattr(r, "hidden", r.hidden[:-1]),
            r"47 bytes of hidden states; \(3, 8\) of bfloat16 are 48",
            id="a byte is missing",
        ),
        pytest.param(
            lambda r: setattr(r, "hidden", b""), "0 bytes of hidden states", id="no rows at all"
        ),
        pytest.param(
            lambda r: r.sequences.pop(), "tells of 0 sequences; 1 were asked", id="no outcome"
        ),
        pytest.param(
            lambda r: r.sequences.add(), "tells of 2 sequences; 1 were asked", id="one too many"
        ),
    ],
)
async def test_answers_that_do_not_fit_are_refused(
    router: FakeRouter, change: Callable[[Response], None], sentence: str
) -> None:
    router.script = [spoil(change)]
    async with RouterClient(router.address) as client:
        with pytest.raises(MalformedAnswer, match=sentence):
            await client.dispatch(*question())


async def test_a_stream_of_garbage_is_no_answer() -> None:
    async def babble(requests: object, context: object) -> AsyncIterator[bytes]:
        yield b"\xff\xff no protobuf"
        await asyncio.Event().wait()

    server = grpc.aio.server()
    handler: grpc.RpcMethodHandler[object, object] = grpc.stream_stream_rpc_method_handler(babble)
    method = grpc.method_handlers_generic_handler("moeops.v1.Router", {"Dispatch": handler})
    server.add_generic_rpc_handlers((method,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with RouterClient(f"127.0.0.1:{port}", mixture="tiny", timeout_s=0.5) as client:
        with pytest.raises(Unavailable):
            await client.dispatch(*question())
    await server.stop(0)


async def test_a_router_that_is_another_service_says_so() -> None:
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with RouterClient(f"127.0.0.1:{port}", mixture="tiny") as client:
        with pytest.raises(MoeError) as raised:
            await client.dispatch(*question())
    await server.stop(0)
    assert raised.value.code is grpc.StatusCode.UNIMPLEMENTED


async def test_an_answer_to_nothing_is_dropped(router: FakeRouter) -> None:
    def other_id(response: Response) -> None:
        response.request_id += 1000

    router.script = [spoil(other_id)]
    async with RouterClient(router.address, timeout_s=0.2) as client:
        with pytest.raises(DeadlineExceeded):
            await client.dispatch(*question())


async def test_close_ends_what_is_under_way(router: FakeRouter) -> None:
    router.script = [say_nothing]
    client = RouterClient(router.address)
    asking = asyncio.create_task(client.dispatch(*question()))
    await until(lambda: len(router.requests) == 1)
    await client.close()
    with pytest.raises(Closed):
        await asking
    with pytest.raises(Closed, match="the client is closed"):
        await client.dispatch(*question())


async def test_a_caller_that_gives_up_disturbs_nobody(router: FakeRouter) -> None:
    router.script = [say_nothing]
    async with RouterClient(router.address) as client:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.dispatch(*question()), 0.1)
        answer = await client.dispatch(*question())
    assert answer.epoch == 7
    assert router.streams == 1


async def test_threads_share_the_blocking_client(router: FakeRouter) -> None:
    with BlockingClient(router.address) as client:
        asked = (asyncio.to_thread(client.dispatch, *question(value=i)) for i in range(20))
        answers = await asyncio.gather(*asked)
        await asyncio.to_thread(client.close)
    assert [float(a.hidden[0, 0]) for a in answers] == list(range(20))


async def test_describe_reads_the_mixture(router: FakeRouter) -> None:
    gate = router_pb2.GateDescription(
        name="g", layers=[0, 1], version="v1", sha256=SHA, experts=["e0", "e1"], top_k=2
    )
    router.description = router_pb2.DescribeMixtureResponse(
        mixture="tiny",
        table_uid="uid",
        epoch=3,
        hidden_size=8,
        layers=2,
        dtype=types_pb2.DTYPE_BFLOAT16,
        trunk_sha256="t",
        gates=[gate],
    )
    async with RouterClient([f"127.0.0.1:{free_port()}", router.address]) as client:
        mixture = await client.describe()
    assert (mixture.name, mixture.epoch, mixture.dtype) == ("tiny", 3, "BFloat16")
    assert mixture.gates[0].experts == ("e0", "e1")
    found = mixture.gate_of(1)
    assert found is not None
    assert found.sha256 == SHA
    assert mixture.gate_of(2) is None


@pytest.mark.parametrize(
    ("description", "sentence"),
    [
        (router_pb2.DescribeMixtureResponse(dtype=types_pb2.DTYPE_FLOAT32), "names no mixture"),
        (router_pb2.DescribeMixtureResponse(mixture="tiny"), "dtype is 0"),
    ],
)
async def test_descriptions_that_say_too_little(
    router: FakeRouter, description: router_pb2.DescribeMixtureResponse, sentence: str
) -> None:
    router.description = description
    async with RouterClient(router.address) as client:
        with pytest.raises(MalformedAnswer, match=sentence):
            await client.dispatch(*question())


@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        pytest.param(
            lambda: Rows(0, np.zeros(8), (Sequence("s", 8),)), r"shape \(8,\)", id="not a matrix"
        ),
        pytest.param(
            lambda: Rows(0, np.zeros((2, 8)), (Sequence("s", 3),)),
            "sequences have 3 rows; hidden has 2",
            id="rows do not add up",
        ),
        pytest.param(
            lambda: Rows(0, np.zeros((1, 8)), (Sequence("", 1),)), "0 bytes", id="no session"
        ),
        pytest.param(
            lambda: Rows(0, np.zeros((1, 8)), (Sequence("é" * 65, 1),)),
            "130 bytes; it must have 1 to 128",
            id="session too long",
        ),
        pytest.param(
            lambda: Choice(SHA, np.zeros((1, 2)), np.zeros((1, 2))),
            "expert_index is float64; it must be int32",
            id="choices are not int32",
        ),
        pytest.param(
            lambda: Choice(SHA, np.zeros((1, 2), np.int32), np.zeros((1, 3))),
            "both must be",
            id="weights of another shape",
        ),
    ],
)
def test_questions_that_make_no_sense(ask: Callable[[], object], sentence: str) -> None:
    with pytest.raises(InvalidRequest, match=sentence):
        ask()


async def test_a_dtype_that_no_router_knows(router: FakeRouter) -> None:
    rows = Rows(0, np.zeros((1, 8), np.float64), (Sequence("s", 1),))
    async with RouterClient(router.address) as client:
        with pytest.raises(InvalidRequest, match="float64"):
            await client.route(rows)


async def until(true: Callable[[], bool]) -> None:
    """Let the loop run until something is so; the test's own time-out is the bound."""
    while not true():  # noqa: ASYNC110
        await asyncio.sleep(0.005)
