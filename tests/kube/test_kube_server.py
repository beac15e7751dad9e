"""The API server that integration tests run against is real, has our resources, and counts."""

from __future__ import annotations

import subprocess
import urllib.error
from pathlib import Path

import pytest
from kubernetes import client

from tests.kube.fixtures import ROOT
from tests.kube.server import KubeServer


def test_every_custom_resource_is_served(kube: client.ApiClient) -> None:
    resources = client.CustomObjectsApi(kube).get_api_resources("moeops.dev", "v1alpha1").resources
    served = {resource.name for resource in resources if "/" not in resource.name}
    files = {path.stem for path in (ROOT / "crds").glob("*.yaml")}
    assert served == files


def test_what_a_schema_forbids_is_refused(kube_server: KubeServer, namespace: str) -> None:
    path = f"/apis/moeops.dev/v1alpha1/namespaces/{namespace}/mixtures"
    body = {"apiVersion": "moeops.dev/v1alpha1", "kind": "Mixture", "metadata": {"name": "m"}}
    with pytest.raises(urllib.error.HTTPError) as refused:
        kube_server.request("POST", path, body | {"spec": {"hiddenSize": -1}})
    assert refused.value.code == 422
    assert b"hiddenSize" in refused.value.read()


def test_writes_are_counted_and_reads_told_apart(
    kube_server: KubeServer, kube: client.ApiClient, namespace: str
) -> None:
    maps, mark = client.CoreV1Api(kube), kube_server.audit.position()
    body = client.V1ConfigMap(metadata=client.V1ObjectMeta(name="a"))
    maps.create_namespaced_config_map(namespace, body)
    maps.read_namespaced_config_map("a", namespace)
    with pytest.raises(client.ApiException):
        maps.create_namespaced_config_map(namespace, body)
    seen = [r for r in kube_server.audit.since(mark) if r.namespace == namespace]
    assert [(r.verb, r.code) for r in seen] == [("create", 201), ("get", 200), ("create", 409)]
    assert [r.changed for r in seen] == [True, False, False]


def kubectl(kubeconfig: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = str(ROOT / ".moe" / "bin" / "kubectl")
    command = [program, "--kubeconfig", str(kubeconfig), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_kubectl_can_use_the_kubeconfig(kube_server: KubeServer, namespace: str) -> None:
    done = kubectl(kube_server.kubeconfig(namespace), "get", "mixtures")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == f"No resources found in {namespace} namespace.\n"


def test_a_service_account_may_only_what_was_granted(
    kube_server: KubeServer, namespace: str
) -> None:
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts"
    kube_server.request("POST", path, {"metadata": {"name": "ann"}})
    kubeconfig = kube_server.kubeconfig(namespace, account="ann")
    assert 'cannot list resource "pods"' in kubectl(kubeconfig, "get", "pods").stderr
    admin = kube_server.kubeconfig(namespace)
    kubectl(admin, "create", "role", "see", "--verb=list", "--resource=pods").check_returncode()
    subject = f"--serviceaccount={namespace}:ann"
    kubectl(admin, "create", "rolebinding", "see", "--role=see", subject).check_returncode()
    tries = (kubectl(kubeconfig, "get", "pods").returncode for _ in range(50))
    assert 0 in tries  # the server learns of a grant by watching its own objects
