"""Fixtures for tests against a real API server: `kube_server`, `kube`, and `namespace`."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from kubernetes import client

from tests.kube.server import ADMIN_TOKEN, KubeServer

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def kube_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeServer]:
    """A real API server with the project's custom resources, shared by all tests of a run."""
    binaries = ROOT / ".moe" / "bin"
    if not (binaries / "kube-apiserver").exists():
        pytest.fail("there is no kube-apiserver to test with; run: make binaries")
    crds = [yaml.safe_load(path.read_text()) for path in sorted((ROOT / "crds").glob("*.yaml"))]
    with KubeServer(binaries, tmp_path_factory.mktemp("kube")) as server:
        server.install_crds(crds)
        yield server


@pytest.fixture(scope="session")
def kube(kube_server: KubeServer) -> Iterator[client.ApiClient]:
    """An administrator's API client for that server."""
    settings = client.Configuration()
    settings.host = kube_server.url
    settings.ssl_ca_cert = str(kube_server.certificate)
    settings.api_key = {"authorization": f"Bearer {ADMIN_TOKEN}"}
    with client.ApiClient(settings) as api:
        yield api


@pytest.fixture
def namespace(kube_server: KubeServer) -> str:
    """The name of a namespace that only this test uses."""
    name = f"test-{uuid.uuid4().hex[:10]}"
    kube_server.create_namespace(name)
    return name
