"""Mutual TLS as the chart has it: on all links, exchanged under load, and a stranger refused."""

from __future__ import annotations

import base64
import ssl
from pathlib import Path

import grpc
import pytest

import moe_client
from e2e.stage import nodes
from e2e.stage.kube import Kube, wait_for
from e2e.stage.tiny import Tiny
from moe_client.recording import Recording
from moe_client.steady import SteadyLoad
from moe_operator.certificates import facts
from moeops.v1.router_pb2 import DescribeRequest, LinkState
from moeops.v1.router_pb2_grpc import RouterStub
from tests.support.certificates import Authority

SYSTEM = Kube("moeops-system")
AUTHORITY = "moeops-operator-ca"


def secret(kube: Kube, name: str) -> dict[str, bytes]:
    body = wait_for(f"there is a Secret {name}", lambda: kube.get("secret", name), 60)
    return {file: base64.b64decode(text) for file, text in body["data"].items()}


class Client:
    """The client's folder, filled from its Secret as often as that changes."""

    def __init__(self, tiny: Tiny, folder: Path) -> None:
        self._tiny, self._folder = tiny, folder
        self.refresh()
        self.tls = moe_client.Tls(folder, f"{tiny.mixture}-router.{tiny.kube.namespace}.svc")

    def refresh(self) -> None:
        for file, content in secret(self._tiny.kube, f"{self._tiny.mixture}-client-tls").items():
            (self._folder / file).write_bytes(content)


def edges(tiny: Tiny) -> list[str]:
    """Return where clients with certificates reach the routers from outside."""
    service = tiny.kube.get("service", f"{tiny.mixture}-router") or {"spec": {"ports": []}}
    ports = [p["nodePort"] for p in service["spec"]["ports"] if p["name"] == "grpc-tls"]
    return [f"{nodes.address(node)}:{port}" for node in nodes.workers(tiny.kube) for port in ports]


def shown(address: str) -> bytes:
    """Return the certificate that a router shows; empty where a node has no router."""
    host, _, port = address.rpartition(":")
    try:
        return ssl.get_server_certificate((host, int(port)), timeout=5).encode()
    except OSError:
        return b""


def take_step(tiny: Tiny, client: Client) -> None:
    """Have the authority exchanged one step further, and wait until programs have read of it."""
    before = secrets(tiny)
    SYSTEM.run("annotate", "secret", AUTHORITY, "moeops.dev/rotate=")

    def written() -> bool:
        return all(one != other for one, other in zip(secrets(tiny), before, strict=True))

    wait_for("the step is in all Secrets", written, 90)
    router, *_ = now = secrets(tiny)
    mark = str(abs(hash(now[0]["tls.crt"])))
    for component in ("router", "worker"):  # the kubelet looks at a pod that changes at once
        for pod in tiny.pods(component=component):
            name = pod["metadata"]["name"]
            tiny.kube.run("annotate", "pod", name, f"moeops.dev/e2e={mark}", "--overwrite")
    client.refresh()

    def read() -> bool:
        seen = [facts(found) for found in map(shown, edges(tiny)) if found]
        return bool(seen) and set(seen) == {facts(router["tls.crt"])}

    wait_for("the routers show what is in the Secret", read, 150, interval_s=0.5)


def secrets(tiny: Tiny) -> list[dict[str, bytes]]:
    """Return those of router, workers and client, in this order."""
    parts = ("router", "workers", "client")
    return [secret(tiny.kube, f"{tiny.mixture}-{part}-tls") for part in parts]


def links(tiny: Tiny) -> list[str]:
    """Return the addresses of the routers' live links."""
    found: list[str] = []
    for address in tiny.addresses():
        with grpc.insecure_channel(address) as channel:
            said = RouterStub(channel).Describe(DescribeRequest(), timeout=10)
        found += [link.address for link in said.links if link.state == LinkState.LIVE]
    return found


def test_exchanged_under_load(tiny: Tiny, scripture: Recording, tmp_path: Path) -> None:
    """No request fails while the authority is exchanged, neither of callers with TLS nor of those
    without; a client of another authority gets nothing."""
    wired = links(tiny)
    assert wired
    assert all(address.startswith("tls:") for address in wired)
    folder = tmp_path / "client"
    folder.mkdir()
    client = Client(tiny, folder)
    old = facts(secrets(tiny)[0]["tls.crt"]).issuer
    with (
        tiny.load(scripture) as plain,
        SteadyLoad(
            edges(tiny),
            scripture,
            mixture=tiny.mixture,
            sessions=2,
            timeout_s=10.0,
            credentials=client.tls,
        ) as secure,
    ):
        # Where one before is not forgotten yet, that comes first; then the next is announced, and
        # then it vouches.
        for _ in range(3):
            take_step(tiny, client)
            if facts(secrets(tiny)[0]["tls.crt"]).issuer != old:
                break
        else:
            pytest.fail("the authority is the same after three steps")
        with moe_client.RouterClient(edges(tiny), credentials=client.tls) as again:
            assert again.describe().name == tiny.mixture
        reports = plain.report(), secure.report()
    for report in reports:
        assert report.failed == 0, report.failures
        assert report.requests > 0
    _assert_refused(tiny, Authority().folder(tmp_path / "stranger", "tiny-client.moe.svc"), folder)


def _assert_refused(tiny: Tiny, stranger: Path, believed: Path) -> None:
    """Whoever this folder says must get nothing, though it believes the right authority."""
    (stranger / "ca.crt").write_bytes((believed / "ca.crt").read_bytes())
    tls = moe_client.Tls(stranger, "tiny-router.moe.svc")
    with (
        moe_client.RouterClient(edges(tiny), credentials=tls, timeout_s=3.0) as foreign,
        pytest.raises(moe_client.Unavailable),
    ):
        foreign.describe()
