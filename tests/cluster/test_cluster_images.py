"""Images hold what their programs need, exactly as locked, and nodes get only what they lack."""

from __future__ import annotations

import importlib.util
import io
import json
import sys
import tarfile
from pathlib import Path
from types import ModuleType

import pytest

from cluster import loading
from cluster.loading import sha256

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ROOT / "images"


def script(name: str) -> ModuleType:
    """Import one of the scripts beside the Dockerfile, which are no package."""
    spec = importlib.util.spec_from_file_location(f"images_{name}", IMAGES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_lists_of_packages_are_what_the_programs_need() -> None:
    for name, names in script("closure").lists(ROOT / "pyproject.toml").items():
        listed = (IMAGES / f"{name}.txt").read_text().split()
        assert listed == names, f"images/{name}.txt is old; run: python images/closure.py"


def test_every_listed_package_is_locked_with_digests() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    for file in sorted(IMAGES.glob("*.txt")):
        for name in file.read_text().split():
            assert "--hash=sha256:" in script("pins").pins(lock, [name])


def test_no_image_has_torch_unless_the_worker_is_asked_to() -> None:
    small = ["build", "common", "shared", "operator", "router"]
    names = {name for part in small for name in (IMAGES / f"{part}.txt").read_text().split()}
    assert not {name for name in names if name == "torch" or name.startswith("nvidia")}


LOCK = """\
alpha==1.0 \\
    --hash=sha256:aa \\
    --hash=sha256:ab
Beta.Two==2.0 ; python_version > "3.10" \\
    --hash=sha256:bb
gamma==3.0 \\
    --hash=sha256:cc
"""


def test_pins_are_whole_entries_in_the_order_of_the_lock() -> None:
    entries = script("pins").pins(LOCK, ["beta-two", "alpha"])
    assert entries == LOCK[: LOCK.index("gamma")]


def test_a_name_that_is_not_locked_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "lock").write_text(LOCK)
    (tmp_path / "list").write_text("alpha\ndelta\n")
    assert script("pins").main(str(tmp_path / "lock"), str(tmp_path / "list")) == 1
    assert capsys.readouterr().err == f"{tmp_path / 'lock'} does not have delta\n"


def archive(images: dict[str, list[bytes]]) -> tarfile.TarFile:
    """What `docker save` would write for images of these layers."""
    file, manifest = io.BytesIO(), []
    with tarfile.open(fileobj=file, mode="w") as tar:

        def add(name: str, content: bytes) -> None:
            header = tarfile.TarInfo(name)
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))

        for name, layers in images.items():
            members = [f"{sha256(layer)[7:]}/layer.tar" for layer in layers]
            for member, layer in zip(members, layers, strict=True):
                add(member, layer)
            config = json.dumps({"rootfs": {"diff_ids": [sha256(layer) for layer in layers]}})
            add(f"{name}.json", config.encode())
            manifest.append({"Config": f"{name}.json", "RepoTags": [name], "Layers": members})
        add("manifest.json", json.dumps(manifest).encode())
    file.seek(0)
    return tarfile.open(fileobj=file)


def sent(images: dict[str, list[bytes]], known: set[str]) -> dict[str, bytes]:
    """What a node that knows these digests is sent: content by name."""
    file = io.BytesIO()
    with archive(images) as saved, tarfile.open(fileobj=file, mode="w") as out:
        loading.write(saved, loading.read(saved), frozenset(known), out)
    file.seek(0)
    with tarfile.open(fileobj=file) as tar:
        members = [(member.name, tar.extractfile(member)) for member in tar]
        return {name: content.read() for name, content in members if content}


TWO = {"moe/a:1": [b"base", b"a"], "moe/b:1": [b"base", b"b"]}


def test_a_layer_that_two_images_share_is_sent_once_and_one_that_is_known_never() -> None:
    layers = {b"base", b"a", b"b"}
    assert layers <= set(sent(TWO, set()).values())
    again = sent(TWO, {sha256(b"base"), sha256(b"b")})
    assert layers & set(again.values()) == {b"a"}


def test_what_is_sent_is_a_layout_whose_every_name_is_its_digest() -> None:
    files = sent(TWO, {sha256(b"base")})
    blobs = {name: content for name, content in files.items() if name.startswith("blobs/")}
    assert all(name == f"blobs/sha256/{sha256(c)[7:]}" for name, c in blobs.items())
    index = json.loads(files["index.json"])
    names = [entry["annotations"]["io.containerd.image.name"] for entry in index["manifests"]]
    assert names == ["docker.io/moe/a:1", "docker.io/moe/b:1"]
    for entry in index["manifests"]:
        manifest = json.loads(blobs[f"blobs/{entry['digest'].replace(':', '/')}"])
        assert f"blobs/{manifest['config']['digest'].replace(':', '/')}" in blobs
        assert [layer["size"] for layer in manifest["layers"]] == [4, 1]


def test_a_name_with_a_registry_is_left_as_it_is() -> None:
    files = sent({"registry.example.com/moe/a:1": [b"x"]}, set())
    entry = json.loads(files["index.json"])["manifests"][0]
    assert entry["annotations"]["io.containerd.image.name"] == "registry.example.com/moe/a:1"
