"""How the plugin comes to a person: by an extra of the package, or as krew's archive."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from images.closure import closure
from krew.archive import needed
from tests.kube.fixtures import ROOT

Body = dict[str, Any]
PROJECT = ROOT / "pyproject.toml"


def test_the_extra_brings_what_the_plugin_needs_and_nothing_of_the_programs() -> None:
    described = tomllib.loads(PROJECT.read_text())["project"]
    brought = closure([*described["dependencies"], *described["optional-dependencies"]["cli"]])
    assert {"kubernetes", "grpcio", "pyyaml"} <= brought
    assert not {"torch", "transformers", "kopf", "uvloop"} & brought
    assert not {"torch", "kopf", "numpy", "safetensors"} & needed(PROJECT)
    scripts = described["scripts"]
    assert scripts["kubectl-moe"] == "kubectl_moe.__main__:main"
    assert scripts["kubectl_complete-moe"] == "kubectl_moe.completer:main"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with an archive and its manifest."""
    folder = tmp_path_factory.mktemp("dist")
    release = ["--release", "https://registry.example.com/moeops"]
    subprocess.run(
        [sys.executable, "-m", "krew", *release, "--out", str(folder)], cwd=ROOT, check=True
    )
    return folder


def test_a_manifest_is_as_krew_wants_it_and_names_its_archive(made: Path) -> None:
    manifest = yaml.safe_load((made / "moe.yaml").read_text())
    assert list(faults(manifest)) == []
    (platform,) = manifest["spec"]["platforms"]
    archive = made / platform["uri"].rsplit("/", 1)[1]
    assert hashlib.sha256(archive.read_bytes()).hexdigest() == platform["sha256"]
    with tarfile.open(archive) as packed:
        names = packed.getnames()
        assert {platform["bin"], "LICENSE", "lib/kubectl_moe/crds/experts.yaml"} <= set(names)
        assert packed.getmember(platform["bin"]).mode == 0o755
        assert not any(name.startswith(("/", "..")) for name in names)


def test_an_archive_runs_alone_behind_a_link(made: Path, tmp_path: Path) -> None:
    (archive,) = made.glob("*.tar.gz")
    store = tmp_path / "store"
    store.mkdir()
    subprocess.run(["tar", "-xzf", str(archive), "-C", str(store)], check=True)
    link = tmp_path / "kubectl-moe"
    link.symlink_to("store/kubectl-moe")
    # Only the system's own packages, and of Python the version that this was made with.
    python = tmp_path / Path(sys.executable).resolve().name
    python.symlink_to(Path(sys.executable).resolve())
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "HOME": str(tmp_path)}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(link), *words], env=environment, capture_output=True, text=True, check=False
        )

    assert run("version", "--client").stdout.startswith("kubectl moe 0.")
    serve = str(ROOT / "examples" / "tiny" / "serve")
    assert run("lint", serve, "-q").stderr == "11 objects: 0 errors, 0 warnings\n"
    alone = run("top")  # asks the library, which has come along
    assert alone.returncode == 1
    assert "no cluster to talk to" in alone.stderr
    python.unlink()
    if not any(Path(folder, python.name).exists() for folder in ("/usr/bin", "/bin")):
        assert "in PATH" in run("version").stderr


SOUND: Body = {
    "apiVersion": "krew.googlecontainertools.github.com/v1alpha2",
    "kind": "Plugin",
    "metadata": {"name": "moe"},
    "spec": {
        "version": "v0.1.0",
        "shortDescription": "Short",
        "platforms": [
            {
                "selector": {"matchLabels": {"os": "linux", "arch": "amd64"}},
                "uri": "https://registry.example.com/x.tar.gz",
                "sha256": "0" * 64,
                "bin": "kubectl-moe",
            }
        ],
    },
}


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda m: m.update(apiVersion="v1"), id="another API"),
        pytest.param(lambda m: m["metadata"].update(name="a b"), id="name"),
        pytest.param(lambda m: m["spec"].update(version="0.1.0"), id="version without v"),
        pytest.param(lambda m: m["spec"].update(shortDescription="a\nb"), id="two lines"),
        pytest.param(lambda m: m["spec"].update(platforms=[]), id="for nobody"),
        pytest.param(lambda m: m["spec"].update(shortDescripton="a"), id="unknown field"),
        pytest.param(lambda m: m["spec"]["platforms"][0].update(sha256="0"), id="digest"),
        pytest.param(lambda m: m["spec"]["platforms"][0].pop("bin"), id="no program"),
        pytest.param(
            lambda m: m["spec"]["platforms"][0].update(uri="https://x/TODO.tar.gz"),
            id="placeholder",
        ),
    ],
)
def test_a_wrong_manifest_would_be_found(spoil: Callable[[Body], object]) -> None:
    manifest = deepcopy(SOUND)
    assert list(faults(manifest)) == []
    spoil(manifest)
    assert list(faults(manifest))


def faults(manifest: Body) -> Iterator[str]:
    """Give what krew would refuse, as its developer guide documents manifests."""
    if manifest["apiVersion"] != SOUND["apiVersion"] or manifest["kind"] != "Plugin":
        yield "apiVersion or kind"
    if not re.fullmatch(r"[\w-]+", manifest["metadata"]["name"]):
        yield "metadata.name"
    spec = manifest["spec"]
    known = {"version", "homepage", "shortDescription", "description", "caveats", "platforms"}
    yield from sorted(spec.keys() - known)
    if not re.fullmatch(r"v\d+\.\d+\.\d+(-[\w.-]+)?", spec["version"]):
        yield "spec.version"
    if not re.fullmatch(r"[^\n]{1,50}", spec["shortDescription"]):
        yield "spec.shortDescription"
    if not spec["platforms"]:
        yield "spec.platforms"
    for platform in spec["platforms"]:
        yield from sorted({"uri", "sha256", "bin", "selector"} ^ platform.keys())
        if not re.fullmatch(r"[0-9a-f]{64}", platform["sha256"]):
            yield "sha256"
        if not re.fullmatch(r"https://\S+\.(tar\.gz|zip)", platform["uri"]):
            yield "uri"
        if not platform["selector"]["matchLabels"].keys() <= {"os", "arch"}:
            yield "selector"
    if re.search(r"TODO|FIXME|PLACEHOLDER|<[^>]+>", yaml.safe_dump(manifest)):
        yield "placeholder"
