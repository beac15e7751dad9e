"""Sessions that begin, and gates that are fetched, over the wire."""

from __future__ import annotations

import hashlib

import pytest

from moe_client import InvalidRequest, NotFound, Unavailable
from moe_client.aio import RouterClient
from moe_client.begun import Begun, Start
from moe_client.errors import MalformedAnswer
from moeops.v1 import router_pb2
from moeops.v1.types_pb2 import DTYPE_FLOAT32 as FLOAT32
from tests.fakes.router import FakeRouter

CONTENT = bytes(range(256)) * 4096  # of several chunks
SHA = hashlib.sha256(CONTENT).hexdigest()


def described() -> router_pb2.DescribeMixtureResponse:
    gate = router_pb2.GateDescription(name="gate", sha256=SHA)
    return router_pb2.DescribeMixtureResponse(mixture="tiny", dtype=FLOAT32, gates=[gate])


async def test_sessions_begin_at_any_router_that_is_there() -> None:
    async with (
        FakeRouter(described()) as router,
        RouterClient(["127.0.0.1:9", router.address], mixture="tiny") as client,
    ):
        begun = await client.begin({"a": b"", "b": b"mine"})
    starts = (Start("a", b"1:uid:7", {"gate": SHA}), Start("b", b"mine", {"gate": SHA}))
    assert begun == Begun("uid", 7, starts)


async def test_too_many_sessions_and_nobody_there() -> None:
    async with RouterClient("127.0.0.1:9", mixture="tiny", timeout_s=0.1) as client:
        with pytest.raises(InvalidRequest, match="1025 sessions are to begin; it must be 1 to"):
            await client.begin({f"s{number}": b"" for number in range(1025)})
        with pytest.raises(Unavailable, match=r"router 127\.0\.0\.1:9"):
            await client.begin({"a": b""})


def test_an_answer_about_other_sessions_is_malformed() -> None:
    with pytest.raises(MalformedAnswer, match="tells of 0 sessions; 1 were to begin"):
        Begun.read(router_pb2.BeginResponse(), ["a"])


async def test_a_gate_comes_from_the_router_that_names_it() -> None:
    async with (
        FakeRouter(described()) as older,
        FakeRouter(described(), gates={SHA: CONTENT}) as newer,
        RouterClient([older.address, newer.address], mixture="tiny") as client,
    ):
        assert await client.fetch_gate(SHA) == CONTENT
        with pytest.raises(NotFound, match="no such gate"):
            await client.fetch_gate("ab" * 32)


async def test_what_has_another_digest_is_no_gate() -> None:
    async with (
        FakeRouter(described(), gates={SHA: CONTENT[:-1]}) as router,
        RouterClient(router.address, mixture="tiny") as client,
    ):
        with pytest.raises(MalformedAnswer, match=f"{SHA} was asked for"):
            await client.fetch_gate(SHA)
