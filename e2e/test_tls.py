"""Mutual TLS on a cluster that served without: switched on, rotated, and a stranger refused."""

from __future__ import annotations

import base64
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

import moe_client
from e2e.stage import nodes
from e2e.stage.kube import Kube, wait_for
from e2e.stage.release import CHART, ROOT, Release
from e2e.stage.restore import restore
from e2e.stage.tiny import Tiny
from moe_client.recording import Recording
from moe_client.steady import SteadyLoad
from moe_operator.certificates import facts
from moeops.v1.router_pb2 import DescribeRequest, LinkState
from moeops.v1.router_pb2_grpc import RouterStub
from tests.support.certificates import Authority

SYSTEM = Kube("moeops-system")
AUTHORITY = "moeops-operator-ca"


@contextmanager
def permitted(tiny: Tiny) -> Iterator[None]:
    """TLS is permitted; afterwards the release and the mixture are as they were."""
    release = Release()
    values = release.values()
    release.upgrade(ROOT / CHART, {**values, "tls": {"mode": "Permitted"}}, "--wait")
    try:
        yield
    finally:
        release.upgrade(ROOT / CHART, values, "--wait")
        restore(tiny)


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


def secure_links(tiny: Tiny) -> int:
    """Return how many live links with TLS the routers have."""
    found = 0
    for address in tiny.addresses():
        with grpc.insecure_channel(address) as channel:
            said = RouterStub(channel).Describe(DescribeRequest(), timeout=10)
        live = (link for link in said.links if link.state == LinkState.LIVE)
        found += sum(link.address.startswith("tls:") for link in live)
    return found


def test_switched_on_and_rotated_under_load(
    tiny: Tiny, scripture: Recording, tmp_path: Path
) -> None:
    """No request fails while routers get TLS, a version comes whose links have it, and the
    authority is exchanged; a client of another authority gets nothing."""
    with tiny.load(scripture) as plain, permitted(tiny):
        wait_for("the routers have TLS", lambda: all_secure(tiny), 120)
        folder = tmp_path / "client"
        folder.mkdir()
        client = Client(tiny, folder)
        tiny.roll_out("v2-better")
        tiny.wait_outcome("v2-better", "Promoted")
        wait_for("links have TLS", lambda: secure_links(tiny), 120)
        old = facts(secrets(tiny)[0]["tls.crt"]).issuer
        options = {"mixture": tiny.mixture, "sessions": 2, "timeout_s": 10.0}
        with SteadyLoad(edges(tiny), scripture, credentials=client.tls, **options) as load:  # type: ignore[arg-type]
            for _ in range(2):  # announced, then it vouches
                take_step(tiny, client)
            assert facts(secrets(tiny)[0]["tls.crt"]).issuer != old
            with moe_client.RouterClient(edges(tiny), credentials=client.tls) as again:
                assert again.describe().name == tiny.mixture
            report = load.report()
        assert report.failed == 0, report.failures
        assert report.requests > 0
        stranger = Authority().folder(tmp_path / "stranger", "tiny-client.moe.svc")
        (stranger / "ca.crt").write_bytes((folder / "ca.crt").read_bytes())
        tls = moe_client.Tls(stranger, "tiny-router.moe.svc")
        with (
            moe_client.RouterClient(edges(tiny), credentials=tls, timeout_s=3.0) as foreign,
            pytest.raises(moe_client.Unavailable),
        ):
            foreign.describe()
        seen = plain.report()
    assert seen.failed == 0, seen.failures


def all_secure(tiny: Tiny) -> bool:
    """Return whether all routers are of the new template, and ready."""
    pods = tiny.pods(component="router")
    ready = [p for p in pods if p["status"].get("containerStatuses", [{}])[0].get("ready")]
    volumes = [{v["name"] for v in pod["spec"]["volumes"]} for pod in ready]
    return len(ready) == len(pods) and all("tls" in names for names in volumes)
