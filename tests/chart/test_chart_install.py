"""`make install` on a real API server, with a stand-in for what makes pods of a Deployment."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import threading
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cluster import images
from tests.chart.charts import ROOT, SYSTEM, Body
from tests.kube.server import KubeServer

DEPLOYMENTS = f"/apis/apps/v1/namespaces/{SYSTEM}/deployments"
SECRETS = f"/api/v1/namespaces/{SYSTEM}/secrets"

_INSTALL = """
import os, sys
from pathlib import Path
from cluster import commands
from cluster.places import Places
from cluster.progress import Progress

root = Path(sys.argv[1])
commands.install_all(Places.of(root, {**os.environ, "HOME": sys.argv[1]}), Progress(root / "log"))
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeServer]:
    """An API server on which nothing of ours is installed."""
    with KubeServer(ROOT / ".moe" / "bin", tmp_path_factory.mktemp("install")) as made:
        yield made


class Controller:
    """Says of each generation of the operator's Deployment that its pods are ready."""

    def __init__(self, server: KubeServer) -> None:
        self._server = server
        self._stop = threading.Event()
        self._done = 0

    def run(self) -> None:
        while not self._stop.wait(0.1):
            listed: list[Body] = self._server.request("GET", DEPLOYMENTS)["items"]
            for deployment in listed:
                if deployment["metadata"]["generation"] > self._done:
                    self._bring_up(deployment)

    def stop(self) -> None:
        self._stop.set()

    def _bring_up(self, deployment: Body) -> None:
        meta, spec = deployment["metadata"], deployment["spec"]
        owner = {"apiVersion": "apps/v1", "kind": "Deployment", "controller": True}
        owner |= {"name": meta["name"], "uid": meta["uid"]}
        count, generation = spec["replicas"], meta["generation"]
        name = {"name": f"{meta['name']}-{generation}", "ownerReferences": [owner]}
        name["labels"] = spec["template"]["metadata"]["labels"]
        body = {
            "metadata": name,
            "spec": {k: spec[k] for k in ("selector", "template", "replicas")},
        }
        path = DEPLOYMENTS.replace("deployments", "replicasets")
        made = self._server.request("POST", path, body)
        counts = {"replicas": count, "readyReplicas": count, "availableReplicas": count}
        made["status"] = {**counts, "observedGeneration": 1}
        self._server.request("PUT", f"{path}/{name['name']}/status", made)
        deployment["status"] = {
            **counts,
            "updatedReplicas": count,
            "observedGeneration": generation,
        }
        self._server.request("PUT", f"{DEPLOYMENTS}/{meta['name']}/status", deployment)
        self._done = generation


@contextmanager
def pods_come(server: KubeServer) -> Iterator[None]:
    controller = Controller(server)
    thread = threading.Thread(target=controller.run)
    thread.start()
    try:
        yield
    finally:
        controller.stop()
        thread.join()


class Checkout:
    """A checkout of its own with the cluster that is given, and what was built in it."""

    def __init__(self, server: KubeServer, root: Path) -> None:
        self._root = root
        state = root / ".moe"
        (state / "bin").mkdir(parents=True)
        for name in ("charts", "crds", ".venv"):
            (root / name).symlink_to(ROOT / name)
        (state / "bin" / "kubectl").symlink_to(ROOT / ".moe" / "bin" / "kubectl")
        (state / "kubeconfig").write_text(server.kubeconfig().read_text())

    def build(self, tag: str) -> None:
        """Note images as `make images` does."""
        lines = "".join(f"{name.upper()}=moeops/{name}:{tag}\n" for name in images.PROGRAMS)
        (self._root / ".moe" / "images.env").write_text(lines)

    def install(self) -> str:
        """Do what `make install` does, and return what it prints."""
        env = {name: value for name, value in os.environ.items() if name != "KUBECONFIG"}
        env["PATH"] = f"{ROOT / '.moe' / 'bin'}:{env['PATH']}"
        command = [sys.executable, "-c", _INSTALL, str(self._root)]
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture
def checkout(server: KubeServer, tmp_path: Path) -> Checkout:
    return Checkout(server, tmp_path)


def image(server: KubeServer) -> str:
    deployment = server.request("GET", f"{DEPLOYMENTS}/moeops-operator")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    return str(container["image"])


@pytest.mark.timeout(400)
def test_installed_again_and_again(server: KubeServer, checkout: Checkout) -> None:
    """The first time, with nothing new, with other images, and after it was interrupted."""
    checkout.build("one")
    with pods_come(server):
        said = checkout.install()
        assert "helm test moeops --namespace moeops-system" in said
        assert image(server) == "moeops/operator:one"
        generation = server.request("GET", f"{DEPLOYMENTS}/moeops-operator")["metadata"]
        checkout.install()
        again = server.request("GET", f"{DEPLOYMENTS}/moeops-operator")["metadata"]
        assert again["generation"] == generation["generation"], "nothing new, and yet pods change"

        checkout.build("two")
        leave_in_the_middle(server)
        checkout.install()
        assert image(server) == "moeops/operator:two"
    served = server.request("GET", "/apis/moeops.dev/v1alpha1")["resources"]
    assert {each["name"] for each in served} >= {"mixtures", "experts", "gates", "overrides"}
    for name in (SYSTEM, "moe"):
        labels = server.request("GET", f"/api/v1/namespaces/{name}")["metadata"]["labels"]
        assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def leave_in_the_middle(server: KubeServer) -> None:
    """Have the newest revision of the release be one that an upgrade was killed in."""
    releases: list[Body] = server.request("GET", f"{SECRETS}?labelSelector=owner%3Dhelm")["items"]
    newest = max(releases, key=lambda body: int(body["metadata"]["labels"]["version"]))
    number = int(newest["metadata"]["labels"]["version"]) + 1
    labels = {**newest["metadata"]["labels"], "version": str(number), "status": "pending-upgrade"}
    release = json.loads(gzip.decompress(b64decode(b64decode(newest["data"]["release"]))))
    release["version"], release["info"]["status"] = number, "pending-upgrade"
    packed = b64encode(b64encode(gzip.compress(json.dumps(release).encode()))).decode()
    name = {"name": f"sh.helm.release.v1.moeops.v{number}", "labels": labels}
    body = {"metadata": name, "type": newest["type"], "data": {"release": packed}}
    server.request("POST", SECRETS, body)
