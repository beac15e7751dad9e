"""The deployments of published models: what would be applied passes a real API server, as said."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from examples.sizes import architecture, manifests, table
from moe_artifacts.manifests import to_yaml
from moe_artifacts.plan import Request, make_plan
from moe_artifacts.split import split
from tests.artifacts.models import make_model
from tests.kube.fixtures import ROOT
from tests.kube.server import KubeServer

EXAMPLES = ROOT / "examples"
FOLDERS = sorted(path.parent for path in EXAMPLES.glob("*/config.json"))
PLURALS = {"Mixture": "mixtures", "Expert": "experts", "Gate": "gates"}


@pytest.fixture(params=FOLDERS, ids=lambda folder: folder.name)
def folder(request: pytest.FixtureRequest) -> Path:
    found: Path = request.param
    return found


def test_each_object_is_taken_and_nothing_of_it_is_lost(
    folder: Path, kube_server: KubeServer, namespace: str
) -> None:
    """Created without effect and strictly: an unknown field would be refused."""
    made = dict(manifests(folder))
    assert len(made) == architecture(folder).experts + 2
    for name in ("mixture", "gate", "e0", f"e{architecture(folder).experts - 1}"):
        body = yaml.safe_load(to_yaml([made[name]]))
        plural = PLURALS[body["kind"]]
        path = f"/apis/moeops.dev/v1alpha1/namespaces/{namespace}/{plural}"
        answer = kube_server.request("POST", f"{path}?dryRun=All&fieldValidation=Strict", body)
        assert holds(answer["spec"], body["spec"])


def holds(stored: object, written: object) -> bool:
    """Say whether everything that was written is in what is stored."""
    if isinstance(written, dict) and isinstance(stored, dict):
        return all(name in stored and holds(stored[name], part) for name, part in written.items())
    return stored == written


def test_all_experts_of_a_model_differ_in_name_and_artifact_alone(folder: Path) -> None:
    """So one of them stands for all before the API server; the first has settings of its own."""
    experts = [body for name, body in manifests(folder) if body["kind"] == "Expert"][1:]
    assert len({body["metadata"]["name"] for body in experts}) == len(experts)
    assert len({body["spec"]["artifact"]["sha256"] for body in experts}) == len(experts)
    own = ("expertId", "artifact")
    rest = [{k: v for k, v in body["spec"].items() if k not in own} for body in experts]
    assert all(spec == rest[0] for spec in rest)


def test_the_readme_says_what_is_computed(folder: Path) -> None:
    text = (EXAMPLES / "README.md").read_text()
    assert table(folder) in text
    assert f"`{folder.name}/`" in text


def test_without_weights_the_manifests_are_those_of_moe_split(tmp_path: Path) -> None:
    """On a model of which the weights are there: all but addresses, digests and the trunk's."""
    model, folder = tmp_path / "model", EXAMPLES / "mixtral-8x7b"
    make_model().save_pretrained(model)
    (model / "settings.yaml").write_text((folder / "settings.yaml").read_text())
    request = Request(
        model, tmp_path / "out", "mixtral", replicas=2, settings=(model / "settings.yaml",)
    )
    split(make_plan(request), lambda count: None)
    split_made = {
        path.stem: yaml.safe_load(path.read_text()) for path in (tmp_path / "out").glob("*/*.yaml")
    }
    ours = dict(manifests(model))
    assert split_made.keys() == ours.keys()
    for name, body in ours.items():
        for place in (body["spec"], split_made[name]["spec"]):
            place.pop("artifact", None)
            place.pop("trunk", None)
        assert body == split_made[name]
