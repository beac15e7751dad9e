"""Fixtures: an API server with the operator's installation, and a stage in a fresh namespace."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.kube.server import KubeServer
from tests.operator.kube.stage import Stage, install, staged


@pytest.fixture(scope="session")
def installed(kube_server: KubeServer) -> KubeServer:
    """The API server with the operator's service account, rights and admission policies."""
    install(kube_server)
    return kube_server


@pytest.fixture
async def stage(installed: KubeServer, namespace: str) -> AsyncIterator[Stage]:
    async with staged(installed, namespace) as made:
        yield made
