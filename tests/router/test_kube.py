"""A real router that follows a real API server with the rights that the operator gives it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from moe_core.parts import Part, head_of, part_name, split
from moe_core.table import Table
from moeops.v1.router_pb2 import DescribeResponse
from tests.kube.server import KubeServer
from tests.router.process import RouterProcess, spawn
from tests.support.proxy import Proxy, proxy
from tests.support.tables import expert, gate, table, to_object

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


def test_without_the_api_server_it_serves_on_also_after_its_own_restart(
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
        assert started.describe().epoch == 1

    with router(stage, cache=cache) as again:
        again.wait_for_epoch(1)
        seen = again.describe()
        assert seen.table_age_s >= 1
        assert addresses(seen) == ["239.77.0.2:7100"]

        stage.put_table(epoch=2)
        stage.proxy.mend()
        again.wait_for_epoch(2)
        wait(again, lambda s: s.table_age_s == 0, "the table is young again")


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
