"""A real router and a real worker with certificates: who is let in, and what a rotation costs."""

from __future__ import annotations

import signal
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import moe_client
from moe_client.steady import SteadyLoad
from moe_core.grpc_tls import channel_credentials
from moe_core.tls import Material, client_context
from moeops.v1.router_pb2 import DescribeMixtureRequest
from moeops.v1.router_pb2_grpc import RouterStub
from moeops.v1.worker_pb2 import DescribeWorkerRequest
from moeops.v1.worker_pb2_grpc import WorkerStub
from tests.router import process as routers
from tests.router.process import RouterProcess
from tests.support.artifacts import write_expert
from tests.support.certificates import (
    CLIENT,
    OPERATOR,
    ROUTER,
    WORKER,
    Authority,
    vouched_for,
    write,
)
from tests.support.dispatching import Caller, dispatch_request, rows_of
from tests.support.program import START_S
from tests.support.tables import TableFile, expert, gate, table, version
from tests.worker import process as workers
from tests.worker.process import WorkerProcess

HIDDEN = 32


@dataclass
class House:
    """A worker and a router, and where their certificates are."""

    path: Path
    authority: Authority
    file: TableFile
    digest: str
    worker: WorkerProcess
    router: RouterProcess

    @property
    def edge(self) -> str:
        return f"127.0.0.1:{_told(self.router, 'listening_tls')}"

    def client(self, folder: Path | None = None) -> moe_client.Tls:
        return moe_client.Tls(folder or self.path / "client", ROUTER)


def _told(program: Any, event: str) -> str:
    (line,) = [line for line in program.log.splitlines() if f"event={event} " in line]
    return str(line).rpartition("port=")[2].rpartition(":")[2]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    path, authority = tmp_path_factory.mktemp("tls"), Authority(vouched_for())
    for name, names in (("worker", WORKER), ("router", ROUTER), ("client", CLIENT)):
        authority.folder(path / name, names)
    written = write_expert(path, hidden_size=HIDDEN)
    row = expert("e0", version("v1", written.sha256, written.uri))
    file = TableFile(path / "table.yaml", table([row], [gate(["e0"], top_k=1)], hidden_size=HIDDEN))
    own = {"namespace": "default", "health": "127.0.0.1:0"}
    kept = {"mixture": "tiny", "tls": str(path / "worker"), **own}
    with workers.spawn(
        [written.assigned("e0")], HIDDEN, ready=False, variables=None, **kept
    ) as worker:
        proves = {"tls": str(path / "router"), "listen_tls": "127.0.0.1:0", **own}
        where = {"table_file": str(file.path), "workers": f"tls:{worker.link}"}
        with routers.spawn(mixture="tiny", **where, **proves) as router:
            router.wait_until_routable([written.sha256])
            yield House(path, authority, file, written.sha256, worker, router)


def test_rows_are_the_same_with_and_without(house: House) -> None:
    request = dispatch_request(house.file.table, [[0], [0]])
    with Caller(house.router.address) as caller:
        (plain,) = caller.dispatch(request)
    material = Material.read(house.path / "client")
    options = [("grpc.ssl_target_name_override", ROUTER)]
    credentials = channel_credentials(material)
    with grpc.secure_channel(house.edge, credentials, options) as channel:
        answers = RouterStub(channel).Dispatch(iter([request]), timeout=20)
        (sealed,) = [answer for answer in answers if answer.request_id]
    assert sealed.hidden == plain.hidden
    assert np.isfinite(rows_of(house.file.table, sealed).astype(np.float32)).all()


def test_bodies_of_many_records_come_whole(house: House) -> None:
    """64 KiB of rows are several records, and more than a link's buffers take at once."""
    hidden = np.random.default_rng(1).standard_normal((20_000, HIDDEN))
    request = dispatch_request(house.file.table, [[0]] * 20_000, hidden=hidden)
    parts = [
        dispatch_request(house.file.table, [[0]] * 4_000, hidden=hidden[start : start + 4_000])
        for start in range(0, 20_000, 4_000)
    ]
    with Caller(house.router.address) as caller:
        (whole,) = caller.dispatch(request)
        pieces = caller.dispatch(*parts)
    assert whole.hidden == b"".join(piece.hidden for piece in pieces)


def _inventory(house: House, folder: Path) -> bytes:
    """Open a link by hand; return what the worker sends first, nothing where it hangs up."""
    context = client_context(Material.read(folder, anonymous=True))
    host, _, port = house.worker.link.rpartition(":")
    with (
        socket.create_connection((host, int(port)), timeout=20) as raw,
        context.wrap_socket(raw, server_hostname=WORKER) as link,
    ):
        try:
            return link.recv(1)
        except (ssl.SSLError, ConnectionResetError):
            return b""


def _foreign(house: House, path: Path) -> Path:
    other = Authority()
    return other.folder(path, ROUTER, believes=house.authority.pair.certificate)


def _nobody(house: House, path: Path) -> Path:
    folder = house.authority.folder(path, ROUTER)
    for name in ("tls.crt", "tls.key"):
        (folder / name).unlink()
    return folder


Guest = Callable[[House, Path], Path]
STRANGERS = [
    pytest.param(_foreign, "CERTIFICATE_VERIFY_FAILED", id="of another authority"),
    pytest.param(_nobody, "PEER_DID_NOT_RETURN_A_CERTIFICATE", id="without a certificate"),
    pytest.param(
        lambda house, path: house.authority.folder(path, ROUTER, days=-1),
        "CERTIFICATE_VERIFY_FAILED",
        id="expired",
    ),
]


@pytest.mark.parametrize(
    ("guest", "reason"),
    [
        *STRANGERS,
        pytest.param(
            lambda house, path: house.authority.folder(path, "big-router.default.svc"),
            f"the certificate is of big-router.default.svc; it must be of {ROUTER}",
            id="a router of another mixture",
        ),
        pytest.param(
            lambda house, path: house.authority.folder(path, CLIENT),
            f"the certificate is of {CLIENT}; it must be of {ROUTER}",
            id="a client",
        ),
    ],
)
def test_a_worker_lets_in_its_own_routers_only(
    house: House, tmp_path: Path, guest: Guest, reason: str
) -> None:
    assert _inventory(house, house.path / "router") != b""
    before = house.worker.log.count(reason)
    assert _inventory(house, guest(house, tmp_path / "guest")) == b""
    until = time.monotonic() + 20
    while house.worker.log.count(reason) == before:
        assert time.monotonic() < until, house.worker.log
        time.sleep(0.02)


def test_a_link_that_does_not_speak_tls_is_refused(house: House) -> None:
    host, _, port = house.worker.link.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=20) as raw:
        raw.sendall(b"\0" * 64)
        while raw.recv(1024):
            pass
    assert "the handshake failed" in house.worker.log


@pytest.mark.parametrize(("guest", "reason"), STRANGERS)
def test_the_edge_refuses_strangers(
    house: House, tmp_path: Path, guest: Guest, reason: str
) -> None:
    tls = house.client(guest(house, tmp_path / "guest"))
    options = {"mixture": "tiny", "timeout_s": 2.0, "credentials": tls}
    with (
        moe_client.RouterClient(house.edge, **options) as client,  # type: ignore[arg-type]
        pytest.raises(moe_client.Unavailable),
    ):
        client.describe()


def test_the_edge_names_who_may_come(house: House, tmp_path: Path) -> None:
    tls = house.client(house.authority.folder(tmp_path / "guest", WORKER))
    with (
        moe_client.RouterClient(house.edge, mixture="tiny", credentials=tls) as client,
        pytest.raises(moe_client.MoeError, match=f"certificate is of {WORKER}; it must be of"),
    ):
        client.describe()


@pytest.mark.parametrize(
    ("plain", "name", "foreign", "sentence"),
    [
        pytest.param(False, "big", False, "is not of the name asked for", id="another name"),
        pytest.param(False, ROUTER, True, "is not of the authority in ca.crt", id="foreign"),
        pytest.param(True, ROUTER, False, "this port of the routers has no TLS", id="no TLS"),
    ],
)
def test_a_client_says_why_it_refuses_routers(
    house: House, tmp_path: Path, plain: bool, name: str, foreign: bool, sentence: str
) -> None:
    other = Authority().folder(tmp_path / "foreign", CLIENT)
    tls = moe_client.Tls(other if foreign else house.path / "client", name)
    options = {"mixture": "tiny", "timeout_s": 2.0, "credentials": tls}
    address = house.router.address if plain else house.edge
    with (
        moe_client.RouterClient(address, **options) as client,  # type: ignore[arg-type]
        pytest.raises(moe_client.Unavailable, match=sentence),
    ):
        client.describe()


@pytest.mark.parametrize(
    ("name", "code"),
    [
        pytest.param(OPERATOR, None, id="the operator"),
        pytest.param(ROUTER, grpc.StatusCode.PERMISSION_DENIED, id="a router"),
    ],
)
def test_a_workers_control_port_is_the_operators(
    house: House, tmp_path: Path, name: str, code: grpc.StatusCode | None
) -> None:
    material = Material.read(house.authority.folder(tmp_path / "caller", name))
    options = [("grpc.ssl_target_name_override", WORKER)]
    seen = None
    with grpc.secure_channel(house.worker.control, channel_credentials(material), options) as to:
        try:
            WorkerStub(to).Describe(DescribeWorkerRequest(), timeout=20)
        except grpc.RpcError as error:
            seen = error.code()
    assert seen is code


def test_health_checks_need_no_certificate_and_get_nothing_else(house: House) -> None:
    (told,) = [line for line in house.worker.log.splitlines() if "event=health" in line]
    ports = [told.rpartition(":")[2], _told(house.router, "health")]
    for port in ports:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            check = health_pb2.HealthCheckRequest(service="readiness")
            answer = health_pb2_grpc.HealthStub(channel).Check(check, timeout=20)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
            with pytest.raises(grpc.RpcError) as refused:
                RouterStub(channel).DescribeMixture(DescribeMixtureRequest(), timeout=20)
            assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_all_is_rotated_under_load_and_no_request_fails(house: House, tmp_path: Path) -> None:
    """First everybody believes both authorities, then all get leaves of the new one, then the old
    one is forgotten. New connections are made at every step, those of before go on."""
    old, new = house.authority, Authority()
    both = old.pair.certificate + new.pair.certificate
    names = {"worker": WORKER, "router": ROUTER, "client": CLIENT}
    steps = [
        *((old, name, both) for name in names),
        *((new, name, both) for name in names),
        *((new, name, new.pair.certificate) for name in names),
    ]
    tls = house.client()
    with SteadyLoad(
        house.edge, mixture="tiny", sessions=2, requests_per_s=100, credentials=tls
    ) as load:
        for number, (authority, name, believed) in enumerate(steps, 1):
            write(house.path / name, authority.leaf(names[name]), believed)
            with moe_client.RouterClient(house.edge, mixture="tiny", credentials=tls) as client:
                assert client.describe(timeout_s=START_S).name == "tiny"
            assert _inventory(house, house.path / "router") != b""
            until = time.monotonic() + START_S
            while load.requests < 20 * number:
                assert time.monotonic() < until
                time.sleep(0.01)
        report = load.report()
    assert report.failed == 0
    assert report.requests >= 20 * len(steps)
    left = old.folder(tmp_path / "left", ROUTER, believes=new.pair.certificate)
    assert _inventory(house, left) == b""
    house.authority = new


def test_a_worker_that_comes_back_is_linked_by_what_there_is_then(house: House) -> None:
    """A link that breaks is made again with the newest certificates."""
    house.worker.signal(signal.SIGSTOP)
    until = time.monotonic() + START_S
    while "event=link_down" not in house.router.log:
        assert time.monotonic() < until, house.router.log
        time.sleep(0.05)
    house.worker.signal(signal.SIGCONT)
    house.router.wait_until_routable([house.digest])


def test_without_a_certificate_no_link_with_tls_is_made(house: House) -> None:
    where = {"table_file": str(house.file.path), "workers": f"tls:{house.worker.link}"}
    reason = "the worker asks for TLS, and this router has no --tls"
    with routers.spawn(mixture="tiny", **where) as router:
        until = time.monotonic() + START_S
        while reason not in router.log:
            assert time.monotonic() < until, router.log
            time.sleep(0.02)
