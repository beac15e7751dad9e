"""A real router with tenants over a real worker: tokens, quotas, a Secret that changes, metrics."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moe_client import InvalidRequest, RouterClient, Unauthenticated
from moe_client.channel import authorization
from moeops.v1.router_pb2 import DescribeMixtureRequest, DispatchRequest, RowsResponse
from moeops.v1.router_pb2_grpc import RouterStub
from tests.router import process as routers
from tests.router.process import RouterProcess
from tests.support.artifacts import write_expert
from tests.support.dispatching import dispatch_request
from tests.support.program import START_S
from tests.support.scrape import scrape
from tests.support.tables import TableFile, expert, gate, table, version
from tests.worker import process as workers

HIDDEN = 32
WITHIN_S = 20.0
TENANTS = [
    {"name": "team-a", "weight": 3},
    {"name": "team-b", "rowsPerSecond": 1, "burstRows": 8},
    {"name": "team-c", "rowsInFlight": 4},
]
OWN = {"team-a": "token-of-a", "team-b": "token-of-b", "team-c": "token-of-c"}


@dataclass
class House:
    file: TableFile
    folder: Path
    router: RouterProcess

    def ask(self, rows: int, token: str) -> RowsResponse:
        """Dispatch so many rows on a stream with this token."""
        request = dispatch_request(self.file.table, [[0]] * rows)
        return self.stream(request, f"Bearer {token}")

    def stream(self, request: DispatchRequest, header: str | None) -> RowsResponse:
        metadata = () if header is None else (("authorization", header),)
        with grpc.insecure_channel(self.router.address) as channel:
            call = RouterStub(channel).Dispatch(
                iter([request]), metadata=metadata, timeout=WITHIN_S
            )
            (answer,) = [answer for answer in call if answer.request_id]
            assert isinstance(answer, RowsResponse)
            return answer

    def allow(self, tenant: str, *tokens: str) -> None:
        allow(self.folder, tenant, *tokens)


def allow(folder: Path, tenant: str, *tokens: str) -> None:
    """Have these be the tokens of a tenant, at once, as the kubelet changes a Secret's files."""
    fresh = folder / f".{tenant}"
    fresh.write_text("".join(f"{sha256(one.encode()).hexdigest()}\n" for one in tokens))
    fresh.rename(folder / tenant)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    path = tmp_path_factory.mktemp("tenants")
    (folder := path / "digests").mkdir()
    written = write_expert(path, hidden_size=HIDDEN)
    row = expert("e0", version("v1", written.sha256, written.uri))
    file = TableFile(path / "table.yaml", table([row], [gate(["e0"], top_k=1)], hidden_size=HIDDEN))
    for tenant, token in OWN.items():
        allow(folder, tenant, token)
    with workers.spawn([written.assigned("e0")], HIDDEN, name="w") as worker:
        where = {"table_file": str(file.path), "workers": worker.link}
        known = {"tenants": json.dumps(TENANTS), "tenants_folder": str(folder)}
        with routers.spawn(mixture="tiny", **where, **known) as router:
            router.wait_until_routable([written.sha256])
            yield House(file, folder, router)


@pytest.mark.parametrize(
    "header", [None, "Bearer of-nobody", "token-of-a", "Bearer " + "x" * 6_000]
)
def test_without_a_token_of_a_tenant_nothing_is_served(house: House, header: str | None) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        house.stream(dispatch_request(house.file.table, [[0]]), header)
    error: grpc.RpcError = caught.value
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    assert "metadata authorization" in str(error.details())
    metadata = () if header is None else (("authorization", header),)
    with grpc.insecure_channel(house.router.address) as channel, pytest.raises(grpc.RpcError):
        RouterStub(channel).DescribeMixture(
            DescribeMixtureRequest(), metadata=metadata, timeout=WITHIN_S
        )


def test_a_client_says_its_token(house: House) -> None:
    with RouterClient(house.router.address, token=OWN["team-a"]) as client:
        assert client.describe().name == "tiny"
    with (
        RouterClient(house.router.address, token="of-nobody") as client,
        pytest.raises(Unauthenticated, match="has a token of no tenant"),
    ):
        client.describe()


def test_where_a_client_has_its_token_from() -> None:
    around = {"MOE_TOKEN": "around"}
    assert authorization(None, around) == (("authorization", "Bearer around"),)
    assert authorization("given", around) == (("authorization", "Bearer given"),)
    assert authorization("", around) == authorization(None, {}) == ()
    with pytest.raises(InvalidRequest, match="MOE_TOKEN must be printable ASCII") as caught:
        authorization(None, {"MOE_TOKEN": "with a space"})
    assert "with a space" not in str(caught.value)


def test_one_over_its_quota_is_told_which_and_when_and_no_other_is(house: House) -> None:
    answers = [house.ask(4, OWN["team-b"]) for _ in range(3)]
    over = answers[-1].failure

    assert over.code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
    assert "quota rowsPerSecond of tenant team-b is 1, and used up" in over.message
    assert over.retry_after_ms > 0
    assert house.ask(64, OWN["team-a"]).hidden
    too_many = house.ask(5, OWN["team-c"]).failure
    assert "quota rowsInFlight of tenant team-c is 4" in too_many.message
    seen = scrape(house.router.metrics)
    own = {"mixture": "tiny", "quota": "rowsPerSecond"}
    refused = seen.of("moeops_router_tenant_refused_requests_total", **own)
    assert refused["team-b",] >= 1
    assert refused["team-a",] == 0
    assert seen.value("moeops_router_tenant_rows_total", mixture="tiny", tenant="team-a") >= 64
    assert not any(token in house.router.log for token in OWN.values())


def test_a_token_is_exchanged_without_a_restart(house: House) -> None:
    house.allow("team-a", OWN["team-a"], "newer")
    until(lambda: answered(house, "newer"))
    assert answered(house, OWN["team-a"])
    house.allow("team-a", "newer")
    until(lambda: not answered(house, OWN["team-a"]))
    assert answered(house, "newer")
    house.allow("team-a", OWN["team-a"])
    until(lambda: answered(house, OWN["team-a"]))


def answered(house: House, token: str) -> bool:
    with suppress(grpc.RpcError):
        return bool(house.ask(1, token).hidden)
    return False


def until(true: Callable[[], bool], within_s: float = START_S) -> None:
    end = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=9_000))
def test_no_header_hurts_the_router(house: House, header: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        house.stream(dispatch_request(house.file.table, [[0]]), header)
    ends = {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert caught.value.code() in ends
    assert house.ask(1, OWN["team-a"]).hidden


def test_bytes_that_are_no_text_in_a_header_hurt_nobody(house: House) -> None:
    """A client of gRPC does not send them; this one writes its HTTP/2 by hand."""
    for value in (b"Bearer \xff\xfe\x80", b"\x00\x01", "Bearer Ω".encode()):
        speak(house.router.address, value)
        assert house.ask(1, OWN["team-a"]).hidden


def speak(address: str, value: bytes) -> bytes:
    """Begin a stream with this header; return what the router says to it."""
    fields = {
        b":method": b"POST",
        b":scheme": b"http",
        b":path": b"/moeops.v1.Router/Dispatch",
        b":authority": b"localhost",
        b"content-type": b"application/grpc",
        b"te": b"trailers",
        b"authorization": value,
    }
    block = b"".join(
        b"\x00" + bytes([len(name)]) + name + bytes([len(text)]) + text
        for name, text in fields.items()
    )
    headers = len(block).to_bytes(3, "big") + b"\x01\x04" + (1).to_bytes(4, "big") + block
    empty_settings = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=WITHIN_S) as raw:
        raw.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + empty_settings + headers)
        return raw.recv(1 << 16)
