"""The cluster that scenarios play on: the example model, served once for all of them.

A scenario leaves the mixture as it found it: `tiny` brings it back before the next one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from e2e.stage.kube import Kube
from e2e.stage.restore import restore
from e2e.stage.tiny import NAMESPACE, Models, Tiny
from e2e.stage.watching import Watch, watching
from examples.tiny.publish import publish
from moe_client.recording import Recording

ROOT = Path(__file__).resolve().parent.parent
_LAST = "test_watched"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is about the whole suite, where a part of it runs."""
    here = Path(__file__).parent
    if {item.path.stem for item in items} != {path.stem for path in here.glob("test_*.py")}:
        config.hook.pytest_deselected(items=[i for i in items if i.path.stem == _LAST])
        items[:] = [item for item in items if item.path.stem != _LAST]


@pytest.fixture(scope="session", autouse=True)
def watch(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Watch | None]:
    """Look on from the first scenario to the last, where the last one asks what was seen."""
    if not any(item.path.stem == _LAST for item in request.session.items):
        yield None
        return
    with watching(tmp_path_factory.mktemp("watch")) as watch:
        yield watch


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
