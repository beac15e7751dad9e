"""The chart on a real API server: accepted, installed, upgraded, taken back and uninstalled.

There are no nodes: what waits for pods is tried in `e2e/test_chart.py`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
import yaml

from moe_operator.kinds import EXPERT, ROUTING_TABLE
from tests.chart import charts
from tests.chart.charts import CHART, ROOT, SYSTEM, TEAMS, Body, Values
from tests.kube.server import KubeServer
from tests.operator.engine.bodies import expert, gate, mixture, sha
from tests.operator.kube.stage import staged

EVERYTHING: Values = {
    "dashboards": {"enabled": True},
    "networkPolicy": {"create": True, "egress": [{"ports": [{"port": 9090, "protocol": "TCP"}]}]},
    "images": {"pullSecrets": ["pull"]},
    "operator": {"tolerations": [{"key": "gpu", "operator": "Exists"}], "podLabels": {"a": "b"}},
    "serviceAccount": {"annotations": {"a": "b"}},
    "extraObjects": ["apiVersion: v1\nkind: ConfigMap\nmetadata: {name: more, namespace: team-a}"],
}
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeServer]:
    """An API server on which nothing of ours is installed."""
    binaries = ROOT / ".moe" / "bin"
    if not (binaries / "kube-apiserver").exists():
        pytest.fail("there is no kube-apiserver to test with; run: make binaries")
    with KubeServer(binaries, tmp_path_factory.mktemp("chart")) as made:
        for name in (SYSTEM, "team-a", "team-b"):
            body = {"metadata": {"name": name, "labels": RESTRICTED}}
            made.request("POST", "/api/v1/namespaces", body)
        yield made


def kubectl(server: KubeServer, *words: str, stdin: str = "") -> str:
    command = [str(ROOT / ".moe" / "bin" / "kubectl"), "--kubeconfig", str(server.kubeconfig())]
    done = subprocess.run([*command, *words], input=stdin, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def helm(server: KubeServer, *words: str | Path, values: Values | None = None) -> str:
    config = {**os.environ, "KUBECONFIG": str(server.kubeconfig(SYSTEM))}
    done = charts.helm(*words, "--namespace", SYSTEM, stdin=json.dumps(values or {}), **config)
    assert done.returncode == 0, done.stderr
    return done.stdout


def upgrade(server: KubeServer, release: str, values: Values, *flags: str) -> None:
    helm(server, "upgrade", "--install", release, CHART, "--values=-", *flags, values=values)


def objects(server: KubeServer, release: str) -> Mapping[tuple[str, str], Body]:
    """Return all objects of a release as they are, by kind and name."""
    manifest = helm(server, "get", "manifest", release)
    found = json.loads(kubectl(server, "get", "-o", "json", "-f", "-", stdin=manifest))["items"]
    return {charts.key(body): body for body in found}


@pytest.mark.parametrize(
    "values",
    [{}, EVERYTHING, {**EVERYTHING, **TEAMS}],
    ids=["default", "everything", "namespaces"],
)
def test_the_api_server_takes_all_of_it(server: KubeServer, values: Values) -> None:
    bodies = charts.render(values)
    text = yaml.safe_dump_all(bodies)
    said = kubectl(server, "apply", "--server-side", "--dry-run=server", "--filename=-", stdin=text)
    assert len(said.splitlines()) == len(bodies)


def test_a_namespace_that_enforces_the_restricted_profile_takes_the_pods(
    server: KubeServer,
) -> None:
    for number, spec in enumerate(
        charts.pods(charts.render({"priorityClasses": {"create": False}}))
    ):
        pod = {"metadata": {"name": f"pod-{number}"}, "spec": spec}
        path = f"/api/v1/namespaces/{SYSTEM}/pods?dryRun=All"
        assert server.request("POST", path, pod)["metadata"]["name"] == f"pod-{number}"
        spec["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
        with pytest.raises(HTTPError) as refused:
            server.request("POST", path, pod)
        assert b"violates PodSecurity" in refused.value.read()


def test_installed_upgraded_taken_back_and_uninstalled(server: KubeServer) -> None:
    """Over what `kubectl apply` installed before; the custom resources and theirs stay."""
    kubectl(server, "apply", "--server-side", "--filename", str(ROOT / "crds"))
    kubectl(server, "apply", "--server-side", "--kustomize", str(ROOT / "deploy"))
    upgrade(server, "moeops", {}, "--take-ownership")
    first = objects(server, "moeops")
    assert all(is_of_helm(body) for body in first.values())
    made = {**mixture(), "metadata": {"name": "tiny"}}
    mixtures = "/apis/moeops.dev/v1alpha1/namespaces/team-a/mixtures"
    server.request("POST", mixtures, made)

    upgrade(server, "moeops", {"operator": {"replicas": 3}, "crds": {"keep": True}})
    second = objects(server, "moeops")
    assert uids(second) == uids(first)
    assert replicas(second) == 3
    helm(server, "rollback", "moeops", "1")
    third = objects(server, "moeops")
    assert (uids(third), replicas(third)) == (uids(first), 2)

    upgrade(server, "moeops", {"crds": {"install": False}})
    helm(server, "uninstall", "moeops")
    crds = json.loads(kubectl(server, "get", "crds", "-o", "json"))["items"]
    assert {crd["metadata"]["name"] for crd in crds} == charts.crds().keys()
    assert server.request("GET", f"{mixtures}/tiny")["metadata"]["name"] == "tiny"
    left = kubectl(
        server, "get", "all,pdb,sa,clusterroles", "-A", "-l", "app.kubernetes.io/name=moeops"
    )
    assert left == ""


def is_of_helm(body: Body) -> bool:
    meta = body["metadata"]
    return bool(
        meta["labels"]["app.kubernetes.io/managed-by"] == "Helm"
        and meta["annotations"]["meta.helm.sh/release-name"] == "moeops"
    )


def uids(bodies: Mapping[tuple[str, str], Body]) -> Mapping[tuple[str, str], str]:
    return {place: body["metadata"]["uid"] for place, body in bodies.items()}


def replicas(bodies: Mapping[tuple[str, str], Body]) -> int:
    return int(bodies["Deployment", f"{SYSTEM}/moeops-operator"]["spec"]["replicas"])


@pytest.fixture(scope="module")
def teams(server: KubeServer) -> str:
    """A release that serves the namespace team-b only; returns the name of its account."""
    values = {"scope": {"kind": "Namespaces", "namespaces": ["team-b"]}}
    upgrade(server, "teams", values, "--take-ownership")
    return "teams-moeops-operator"


@pytest.mark.timeout(240)
async def test_an_operator_of_one_namespace_serves_it_with_what_it_may(
    server: KubeServer, teams: str
) -> None:
    place = server.audit.position()
    async with staged(server, "team-b", teams) as stage:
        stage.start()
        await stage.apply(mixture(), expert("e0", sha("a")), gate("e0"))
        await stage.until(ROUTING_TABLE, "tiny", lambda table: table["spec"]["gates"], 60)
        await stage.until(
            EXPERT, "tiny-e0", lambda e: e.get("status", {}).get("phase") == "Serving"
        )
        await stage.quiet()
    user = f"system:serviceaccount:{SYSTEM}:{teams}"
    mine = [request for request in server.audit.since(place) if request.user == user]
    assert mine, "nothing was asked for"
    assert [request for request in mine if request.code == 403] == []
    assert {request.namespace for request in mine if request.resource != "nodes"} <= {"team-b", ""}


@contextmanager
def healthy(status: int) -> Iterator[str]:
    """Give the address of a stand-in for the operator, which answers with this status."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.path == "/readyz"
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            return

    with HTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.server_port}"
        finally:
            listening.shutdown()
            thread.join()


def check(server: KubeServer, folder: Path, status: int, lease: str) -> tuple[int, Sequence[str]]:
    """Run what `helm test` runs in its pod, with the rights that it has there."""
    config = yaml.safe_load(server.kubeconfig(SYSTEM, "teams-moeops-check").read_text())
    (folder / "token").write_text(config["users"][0]["user"]["token"])
    (folder / "ca.crt").write_bytes(server.certificate.read_bytes())
    host, _, port = server.url.removeprefix("https://").partition(":")
    (pod,) = (b for b in charts.render(release="teams") if b["kind"] == "Pod")
    (container,) = pod["spec"]["containers"]
    with healthy(status) as address:
        env = {
            **os.environ,
            "MOE_HEALTH": address,
            "MOE_LEASE": lease,
            "MOE_LEASE_NAMESPACE": SYSTEM,
            "MOE_ACCOUNT": str(folder),
            "MOE_PATIENCE_S": "0",
            "KUBERNETES_SERVICE_HOST": host,
            "KUBERNETES_SERVICE_PORT": port,
        }
        command = [sys.executable, "-c", *container["args"]]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.returncode, done.stdout.splitlines()


def test_helm_test_tells_what_is_amiss(server: KubeServer, teams: str, tmp_path: Path) -> None:
    rights = [b for b in charts.render(release="teams") if "check" in b["metadata"]["name"]]
    parts = [body for body in rights if body["kind"] != "Pod"]
    kubectl(server, "apply", "--filename=-", stdin=yaml.safe_dump_all(parts))
    code, said = check(server, tmp_path, 500, teams)
    assert code == 1
    assert said[0].startswith("the operator does not answer at http://127.0.0.1")
    assert f"the Lease {SYSTEM}/{teams} cannot be read: HTTP Error 404: Not Found" in said
    path = f"/apis/coordination.k8s.io/v1/namespaces/{SYSTEM}/leases"
    lease = {"metadata": {"name": teams}, "spec": {"holderIdentity": ""}}
    made = server.request("POST", path, lease)
    assert check(server, tmp_path, 200, teams) == (1, [f"nobody holds the Lease {SYSTEM}/{teams}"])
    server.request("PUT", f"{path}/{teams}", {**made, "spec": {"holderIdentity": uuid.uuid4().hex}})
    all_well = "the operator answers, one leads, and all custom resources are served"
    assert check(server, tmp_path, 200, teams) == (0, [all_well])


@pytest.mark.parametrize(
    ("values", "words", "without"),
    [
        ({}, ("every namespace", "helm test moeops --namespace moeops-system"), ("requestedBy",)),
        ({}, ("kubectl apply --namespace NAMESPACE -f OUT/manifests",), ("false",)),
        (TEAMS, ("team-a, team-b", "kubectl apply --namespace team-a"), ("NAMESPACE",)),
        ({"admissionPolicies": {"mutating": "Never"}}, ("must give spec.requestedBy",), ()),
        ({"rbac": {"nodes": False}}, ("rbac.nodes is false",), ()),
        ({"admissionPolicies": {"create": False}}, ("admissionPolicies.create is false",), ()),
        ({"operator": {"replicas": 1}}, ("One operator",), ()),
    ],
)
def test_the_notes_say_the_next_command_and_what_is_left_out(
    server: KubeServer, values: Values, words: tuple[str, ...], without: tuple[str, ...]
) -> None:
    flags = ("--dry-run=server", "--values=-", "--take-ownership")
    said = helm(server, "upgrade", "--install", "moeops", CHART, *flags, values=values)
    notes = said.partition("NOTES:")[2]
    assert all(word in notes for word in words), notes
    assert not any(word in notes for word in without), notes
