"""A real router that follows a real API server with the rights that the operator gives it.

And goes on without it, also after its own restart: with the answers that it gave before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc
import numpy as np
import pytest
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc

from moe_core.parts import Part, head_of, part_name, split
from moe_core.table import Table
from moeops.v1.router_pb2 import DescribeResponse, RouteRequest
from tests.artifacts.file_server import FileServer, serving
from tests.kube.server import KubeServer
from tests.router.process import RouterProcess, spawn
from tests.support.artifacts import write_expert
from tests.support.dispatching import Caller, dispatch_request, rows_of
from tests.support.gates import write_gate
from tests.support.proxy import Proxy, proxy
from tests.support.scrape import scrape
from tests.support.tables import expert, gate, table, to_object, version
from tests.worker import process as workers

# Workers' addresses are multicast ones: the API server takes them, and the kernel refuses to
# connect there without sending anything.
TABLES = "/apis/moeops.dev/v1alpha1/namespaces/{}/routingtables"
REVISIONS = "/apis/apps/v1/namespaces/{}/controllerrevisions"
SLICES = "/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices"
ROLES = "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/{}"
RIGHTS = [
    {
        "apiGroups": ["moeops.dev"],
        "resources": ["routingtables"],
        "resourceNames": ["tiny"],
        "verbs": ["get", "list", "watch"],
    },
    {
        "apiGroups": ["apps"],
        "resources": ["controllerrevisions"],
        "verbs": ["get"],
    },
    {
        "apiGroups": ["discovery.k8s.io"],
        "resources": ["endpointslices"],
        "verbs": ["get", "list", "watch"],
    },
]


@dataclass
class Stage:
    """A namespace with a service account for routers, seen through a proxy that can be cut."""

    server: KubeServer
    namespace: str
    proxy: Proxy
    kubeconfig: Path
    table: Table

    def put_table(self, **changes: Any) -> None:
        """Create the table, or replace it with the next epoch."""
        path = TABLES.format(self.namespace)
        metadata = {"name": "tiny", "namespace": self.namespace}
        body = to_object(replace(self.table, **changes)) | {"metadata": metadata}
        if changes.get("epoch", 1) == 1:
            self.server.request("POST", path, body)
            return
        old = self.server.request("GET", f"{path}/tiny")
        metadata["resourceVersion"] = old["metadata"]["resourceVersion"]
        self.server.request("PUT", f"{path}/tiny", body)

    def put_part(self, part: Part) -> None:
        path = REVISIONS.format(self.namespace)
        metadata = {"name": part_name("tiny", part.sha256), "namespace": self.namespace}
        body = {"metadata": metadata, "revision": part.epoch, "data": part.to_data()}
        self.server.request("POST", path, body)

    def put_head(self, spec: Mapping[str, Any], parts: Sequence[Part]) -> None:
        path = TABLES.format(self.namespace) + "/tiny"
        old = self.server.request("GET", path)
        self.server.request("PUT", path, {**old, "spec": head_of(spec, parts)})

    def delete_table(self) -> None:
        self.server.request("DELETE", TABLES.format(self.namespace) + "/tiny")

    def put_slice(self, name: str, *addresses: str) -> None:
        body = {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": name, "labels": {"kubernetes.io/service-name": "tiny-workers"}},
            "addressType": "IPv4",
            "ports": [{"name": "link", "port": 7100, "protocol": "TCP"}],
            "endpoints": [{"addresses": [a], "conditions": {"ready": False}} for a in addresses],
        }
        self.server.request("POST", SLICES.format(self.namespace), body)


@pytest.fixture
def stage(kube_server: KubeServer, namespace: str, tmp_path: Path) -> Iterator[Stage]:
    account = {"metadata": {"name": "tiny-router"}}
    kube_server.request("POST", f"/api/v1/namespaces/{namespace}/serviceaccounts", account)
    role = {"metadata": {"name": "tiny-router"}, "rules": RIGHTS}
    kube_server.request("POST", ROLES.format(namespace, "roles"), role)
    binding = {
        "metadata": {"name": "tiny-router"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "tiny-router"},
        "subjects": [{"kind": "ServiceAccount", "name": "tiny-router", "namespace": namespace}],
    }
    kube_server.request("POST", ROLES.format(namespace, "rolebindings"), binding)
    url = urlsplit(kube_server.url)
    assert url.hostname is not None
    assert url.port is not None
    content = table([expert("e0")], [gate(["e0"], top_k=1)])
    with proxy(url.hostname, url.port) as between:
        config = yaml.safe_load(kube_server.kubeconfig(namespace, "tiny-router").read_text())
        config["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{between.port}"
        file = tmp_path / "kubeconfig"
        file.write_text(yaml.safe_dump(config))
        yield Stage(kube_server, namespace, between, file, content)


@contextmanager
def router(stage: Stage, **flags: str) -> Iterator[RouterProcess]:
    with spawn(
        mixture="tiny", namespace=stage.namespace, kubeconfig=str(stage.kubeconfig), **flags
    ) as started:
        yield started


def wait(router: RouterProcess, condition: Callable[[DescribeResponse], bool], what: str) -> None:
    until = time.monotonic() + 30
    while not condition(seen := router.describe()):
        assert time.monotonic() < until, f"never: {what}\n{seen}\n{router.log}"
        time.sleep(0.05)


def addresses(seen: DescribeResponse) -> list[str]:
    return sorted(link.address for link in seen.links)


def test_it_follows_the_table_and_the_workers_with_these_rights_alone(stage: Stage) -> None:
    stage.put_table()
    stage.put_slice("a", "239.77.0.2")
    with router(stage) as started:
        started.wait_for_epoch(1)
        wait(started, lambda s: addresses(s) == ["239.77.0.2:7100"], "the first worker")

        stage.put_table(epoch=2)
        started.wait_for_epoch(2)
        stage.put_slice("b", "239.77.0.3", "239.77.0.4")
        wait(started, lambda s: len(s.links) == 3, "three workers")


def test_a_table_in_parts_is_taken_when_all_of_them_are_there(stage: Stage, tmp_path: Path) -> None:
    """And its copy serves after a restart without an API server."""
    stage.put_table()
    spec = replace(stage.table, epoch=2).to_spec()
    first, *others = split(spec, ())
    cache = str(tmp_path / "cache")
    with router(stage, cache=cache) as started:
        started.wait_for_epoch(1)
        for part in others:
            stage.put_part(part)
        stage.put_head(spec, (first, *others))
        wait(started, lambda s: s.table_age_s >= 1, "it waits for the part, and serves on")
        assert started.describe().epoch == 1

        stage.put_part(first)
        started.wait_for_epoch(2)
        stage.proxy.cut()

    with router(stage, cache=cache) as again:
        again.wait_for_epoch(2)


def test_without_the_api_server_it_serves_on_and_tries_the_workers_that_it_knew(
    stage: Stage, tmp_path: Path
) -> None:
    stage.put_table()
    stage.put_slice("a", "239.77.0.2")
    cache = str(tmp_path / "cache")
    with router(stage, cache=cache) as started:
        started.wait_for_epoch(1)
        wait(started, lambda s: addresses(s) == ["239.77.0.2:7100"], "the worker is known")
        stage.proxy.cut()
        wait(started, lambda s: s.table_age_s >= 1, "the table grows old")
        seen = started.describe()
        assert (seen.epoch, seen.table_kept) == (1, False)

    with router(stage, cache=cache) as again:
        again.wait_for_epoch(1)
        seen = again.describe()
        assert seen.table_age_s >= 1
        assert seen.table_kept
        assert addresses(seen) == ["239.77.0.2:7100"]

        stage.put_table(epoch=2)
        stage.proxy.mend()
        again.wait_for_epoch(2)
        wait(again, lambda s: s.table_age_s == 0 and not s.table_kept, "the table is young again")


@contextmanager
def refusing(stage: Stage) -> Iterator[None]:
    """The API server refuses connections, as where nobody listens."""
    stage.proxy.cut()
    yield
    stage.proxy.mend()


@contextmanager
def silent(stage: Stage) -> Iterator[None]:
    """It takes connections and says nothing."""
    with stage.server.halted():
        yield


@pytest.mark.parametrize("gone", [refusing, silent])
def test_a_restart_without_the_api_server_gives_the_same_answers_bit_for_bit(
    stage: Stage, tmp_path: Path, gone: Callable[[Stage], AbstractContextManager[None]]
) -> None:
    """Killed as by the kubelet; the gate's artifact comes from its cache, as all else does.

    The API server takes no addresses on loopback, so the first start is told the worker's, and the
    second one finds it on disk.
    """
    ids, cache = ("e0", "e1"), str(tmp_path / "cache")
    written = [write_expert(tmp_path, seed=seed) for seed in range(2)]
    artifact = write_gate(tmp_path, {0: np.eye(2, 32, dtype=np.float32)}, ids)
    rows = [expert(i, version("v1", w.sha256)) for i, w in zip(ids, written, strict=True)]
    assigned = [w.assigned(i) for i, w in zip(ids, written, strict=True)]
    with workers.spawn(assigned, 32) as worker:
        with serving(FileServer(artifact.path.read_bytes())) as files:
            chosen = gate(ids, stable=version("g1", artifact.sha256, files.uri))
            stage.table = table(rows, [chosen])
            stage.put_table()
            with router(stage, cache=cache, workers=worker.link) as first:
                first.wait_until_routable([w.sha256 for w in written])
                before = answers(first, stage.table)
                first.kill()
        with gone(stage), router(stage, cache=cache) as again:
            again.wait_until_routable([w.sha256 for w in written])

            assert answers(again, stage.table) == before
            assert is_ready(again)
            seen = again.describe()
            assert (seen.epoch, seen.table_kept) == (1, True)
            scraped = scrape(again.metrics)
            assert scraped.value("moeops_router_table_source", mixture="tiny", source="Kept") == 1
            assert "event=table_from_copy" in again.log


def answers(router: RouterProcess, content: Table) -> tuple[bytes, bytes]:
    """Return the rows that Dispatch and Route give for fixed ones."""
    asked = dispatch_request(content, [[0, 1], [1, 0], [0, 1]], seed=7)
    route = RouteRequest(
        request_id=1,
        mixture=content.mixture,
        dtype=asked.dtype,
        hidden_size=content.hidden_size,
        sequences=asked.sequences,
        hidden=asked.hidden,
    )
    with Caller(router.address) as caller:
        (dispatched,) = caller.dispatch(asked)
        routed = caller.route(route)
    return rows_of(content, dispatched).tobytes(), rows_of(content, routed).tobytes()


def is_ready(router: RouterProcess) -> bool:
    with grpc.insecure_channel(router.address) as channel:
        request = health_pb2.HealthCheckRequest(service="readiness")
        said = health_pb2_grpc.HealthStub(channel).Check(request, timeout=10)
    return bool(said.status == health_pb2.HealthCheckResponse.SERVING)


def test_a_backup_put_back_takes_no_router_back(stage: Stage, tmp_path: Path) -> None:
    """The stored table is one of an earlier epoch again, as after a restore of etcd."""
    cache = str(tmp_path / "cache")
    stage.put_table()
    stage.put_table(epoch=3)
    with router(stage, cache=cache) as started:
        started.wait_for_epoch(3)
    stage.put_table(epoch=2)
    with router(stage, cache=cache) as again:
        again.wait_for_epoch(3)
        seen = again.describe()
        assert (seen.epoch, seen.table_kept) == (3, True)

        stage.put_table(epoch=4)
        again.wait_for_epoch(4)
        assert not again.describe().table_kept


def test_a_table_deleted_and_made_again_counts_anew(stage: Stage) -> None:
    stage.put_table()
    stage.put_table(epoch=2)
    with router(stage) as started:
        started.wait_for_epoch(2)
        uid = started.describe().table_uid

        stage.delete_table()
        stage.put_table()

        wait(started, lambda s: s.epoch == 1, "the new table")
        assert started.describe().table_uid not in ("", uid)


def test_it_waits_for_a_table_that_does_not_exist_yet(stage: Stage) -> None:
    with router(stage) as started:
        assert started.describe().epoch == 0

        stage.put_table()

        started.wait_for_epoch(1)
