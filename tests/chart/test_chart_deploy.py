"""The manifests for those without helm are what the chart renders to, and kustomize takes them.

After a wanted change: `python -m tests.chart.test_chart_deploy` writes them anew.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import yaml

from tests.chart import charts
from tests.chart.charts import ROOT, Body

DEPLOY = ROOT / "deploy"
_VALUES = {"crds": {"install": False}, "admissionPolicies": {"mutating": "Always"}}
_HELMS_OWN = re.compile(r"^ +(helm\.sh/chart|app\.kubernetes\.io/managed-by): .*\n", re.MULTILINE)
_HEAD = (
    "# Rendered from charts/moeops: python -m tests.chart.test_chart_deploy. Not to be edited.\n"
)


def rendered() -> Mapping[str, str]:
    """Return the text of each file that is rendered."""
    parts = re.split(r"^---\n", charts.text(_VALUES, "--skip-tests"), flags=re.MULTILINE)
    documents = [re.sub(r"^# Source: .*\n", "", part).strip("\n") for part in parts if part.strip()]
    mutating = [each for each in documents if "\nkind: Mutating" in f"\n{each}"]
    others = [each for each in documents if each not in mutating]
    files = {"operator.yaml": others, "requested-by.yaml": mutating}
    return {
        name: _HEAD + _HELMS_OWN.sub("", "\n---\n".join(found)) + "\n"
        for name, found in files.items()
    }


def built(folder: Path = DEPLOY) -> list[Body]:
    """Return what kustomize makes of a folder."""
    command = [str(ROOT / ".moe" / "bin" / "kubectl"), "kustomize", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [body for body in yaml.safe_load_all(done.stdout) if body]


def test_the_files_are_as_the_chart_renders_them() -> None:
    for name, wanted in rendered().items():
        assert (DEPLOY / name).read_text() == wanted, "run: python -m tests.chart.test_chart_deploy"


def test_kustomize_makes_what_helm_would_install() -> None:
    ours = {(b["kind"], b["metadata"]["name"]): b for b in built() if b["kind"] != "Namespace"}
    theirs = {(b["kind"], b["metadata"]["name"]): b for b in charts.render(_VALUES, "--skip-tests")}
    assert ours.keys() == theirs.keys()
    for key, body in theirs.items():
        for label in ("helm.sh/chart", "app.kubernetes.io/managed-by"):
            body["metadata"]["labels"].pop(label)
        assert ours[key] == body


def test_each_image_is_put_where_it_belongs(tmp_path: Path) -> None:
    folder = tmp_path / "deploy"
    shutil.copytree(DEPLOY, folder)
    images = folder / "images.yaml"
    images.write_text(re.sub(r"moeops/(\w+):\S+", r"there/\1:mine", images.read_text()))
    (container,) = charts.one(built(folder), "Deployment")["spec"]["template"]["spec"]["containers"]
    env = {each["name"]: each.get("value") for each in container["env"]}
    assert container["image"] == "there/operator:mine"
    for program in ("router", "worker", "evaluator"):
        assert env[f"MOE_{program.upper()}_IMAGE"] == f"there/{program}:mine"


if __name__ == "__main__":
    for name, content in rendered().items():
        (DEPLOY / name).write_text(content)
