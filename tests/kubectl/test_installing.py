"""How the plugin comes to a person: by an extra of the package, or as krew's archive."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest
import yaml

from images.closure import closure
from krew.archive import needed
from tests.kube.fixtures import ROOT

PROGRAMS = ROOT / ".moe" / "bin"
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


def test_a_manifest_is_as_indexes_of_krew_want_it_and_names_its_archive(made: Path) -> None:
    manifest = yaml.safe_load((made / "moe.yaml").read_text())
    assert re.fullmatch(r"[^\n]{1,50}", manifest["spec"]["shortDescription"])
    assert manifest["metadata"]["name"] == "moe"
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


def test_krew_installs_it_and_takes_it_away_again(made: Path, tmp_path: Path) -> None:
    (archive,) = made.glob("*.tar.gz")
    manifest = made / "moe.yaml"
    files = [f"--manifest={manifest}", f"--archive={archive}"]
    root = tmp_path / "krew"
    python = Path(sys.executable).resolve().parent
    path = f"{root / 'bin'}:{PROGRAMS}:{python}:/usr/bin:/bin"
    environment = {"KREW_ROOT": str(root), "HOME": str(tmp_path), "PATH": path}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words, env=environment, capture_output=True, text=True, check=False, cwd=tmp_path
        )

    # Where krew is at home it has an index, and takes nothing away without one.
    assert run("git", "init", "--quiet", str(root / "index" / "default")).returncode == 0
    installed = run("krew", "install", *files)
    assert (installed.returncode, "Installed plugin: moe" in installed.stderr) == (0, True)
    assert "kubectl moe completion --install" in installed.stderr
    assert run("kubectl", "moe", "version", "--client").stdout.startswith("kubectl moe 0.")
    assert run("krew", "uninstall", "moe").returncode == 0
    assert run("kubectl", "moe", "version", "--client").returncode != 0
    # It looks at what it installs: neither another archive nor a manifest without a version.
    archive.write_bytes(archive.read_bytes() + b" ")
    assert "checksum" in run("krew", "install", *files).stderr
    body = yaml.safe_load(manifest.read_text())
    del body["spec"]["version"]
    manifest.write_text(yaml.safe_dump(body))
    assert "version" in run("krew", "install", *files).stderr
