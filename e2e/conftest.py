"""The cluster that scenarios play on: the example model, served once for all of them.

A scenario leaves the mixture as it found it: `tiny` brings it back before the next one.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from e2e.stage.kube import Kube
from e2e.stage.restore import restore
from e2e.stage.tiny import NAMESPACE, Models, Tiny
from examples.tiny.publish import publish
from moe_client.recording import Recording

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def kube() -> Kube:
    """The namespace in which mixtures are served; the operator is installed already."""
    torch.set_num_threads(1)
    publish(ROOT / ".moe" / "artifacts")
    return Kube(NAMESPACE)


@pytest.fixture(scope="session")
def models() -> Models:
    """The example model in bfloat16, remote and local."""
    return Models.load(torch.bfloat16)


@pytest.fixture(scope="session")
def recording(models: Models) -> Recording:
    """Requests of all domains, with the right answers."""
    return models.recording()


@pytest.fixture(scope="session")
def scripture(models: Models) -> Recording:
    """Requests that mostly concern expert e3."""
    return models.recording(("scripture",))


@pytest.fixture
def tiny(kube: Kube) -> Tiny:
    """The mixture, all its experts on version v1 and Ready; afterwards brought back to that."""
    tiny = Tiny(kube)
    restore(tiny)
    return tiny
