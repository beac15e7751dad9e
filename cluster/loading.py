"""Gives nodes the images that Docker has, but of these only the layers that a node lacks.

`kind load docker-image` sends whole images, each time. Most layers never change, so what is sent
here is an OCI archive without the layers that the node's containerd already keeps.
"""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.progress import Progress, StepFailed

_CONTAINERD = ("ctr", "--namespace", "k8s.io")


@dataclass(frozen=True, slots=True)
class Blob:
    """A layer, known by the digest of its content, and where `docker save` put it."""

    digest: str
    size: int
    member: str


@dataclass(frozen=True, slots=True)
class Image:
    """One image out of a `docker save` archive: its full name, configuration and layers."""

    name: str
    config: bytes
    layers: tuple[Blob, ...]

    def manifest(self) -> bytes:
        """Return the image's OCI manifest."""
        kind = "application/vnd.oci.image"
        layers = [_descriptor(f"{kind}.layer.v1.tar", b.digest, b.size) for b in self.layers]
        config = _descriptor(f"{kind}.config.v1+json", sha256(self.config), len(self.config))
        media_type = f"{kind}.manifest.v1+json"
        body = {"schemaVersion": 2, "mediaType": media_type, "config": config, "layers": layers}
        return json.dumps(body).encode()


def load(nodes: Iterable[str], images: Iterable[str], folder: Path, progress: Progress) -> None:
    """Have containerd on each of these nodes keep these images. `folder` is for a large file.

    Raises StepFailed when a node refuses them.
    """
    wanted = set(images)
    lacking = [node for node in nodes if not _qualified(wanted) <= names_on(node, progress)]
    if not lacking:
        return
    archive = folder / "images.tar"
    with progress.step(f"loading the images into {', '.join(sorted(lacking))}"):
        try:
            progress.run(["docker", "save", "--output", archive, *sorted(wanted)])
            with ThreadPoolExecutor() as pool:
                list(pool.map(lambda node: _give(node, archive, progress), lacking))
        finally:
            archive.unlink(missing_ok=True)


def names_on(node: str, progress: Progress) -> set[str]:
    """Return the full names of the images that a node has."""
    listing = ["docker", "exec", node, *_CONTAINERD, "images", "list", "--quiet"]
    return set(progress.run(listing).split())


def read(saved: tarfile.TarFile) -> list[Image]:
    """Read what a `docker save` archive holds."""
    manifest: list[Mapping[str, Any]] = json.loads(_content(saved, "manifest.json"))
    images = []
    for entry in manifest:
        config = _content(saved, entry["Config"])
        digests = json.loads(config)["rootfs"]["diff_ids"]
        members = zip(digests, entry["Layers"], strict=True)
        layers = tuple(Blob(digest, saved.getmember(m).size, m) for digest, m in members)
        images += [Image(name, config, layers) for name in _qualified(entry["RepoTags"])]
    return images


def write(
    saved: tarfile.TarFile, images: Iterable[Image], known: frozenset[str], out: tarfile.TarFile
) -> None:
    """Write an OCI archive of these images, without the layers whose digests are known."""
    done, described = set(known), []
    for image in images:
        manifest = image.manifest()
        annotations = {"io.containerd.image.name": image.name}
        media_type = "application/vnd.oci.image.manifest.v1+json"
        entry = _descriptor(media_type, sha256(manifest), len(manifest))
        described.append({**entry, "annotations": annotations})
        for content in (image.config, manifest):
            _add(out, _blob_path(sha256(content)), content)
        for layer in image.layers:
            if layer.digest not in done:
                done.add(layer.digest)
                header = tarfile.TarInfo(_blob_path(layer.digest))
                header.size = layer.size
                out.addfile(header, saved.extractfile(layer.member))
    _add(out, "index.json", json.dumps({"schemaVersion": 2, "manifests": described}).encode())
    _add(out, "oci-layout", b'{"imageLayoutVersion": "1.0.0"}')


def sha256(content: bytes) -> str:
    """Return a digest as registries write it."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _give(node: str, archive: Path, progress: Progress) -> None:
    """Send what a node lacks, or all of it: it may throw something away in between."""
    listing = ["docker", "exec", node, *_CONTAINERD, "content", "list", "--quiet"]
    known = frozenset(progress.run(listing).split())
    try:
        _send(node, archive, known)
    except StepFailed:
        _send(node, archive, frozenset())


def _send(node: str, archive: Path, known: frozenset[str]) -> None:
    command = ["docker", "exec", "--interactive", node, *_CONTAINERD]
    command += ["images", "import", "--all-platforms", "-"]
    with tempfile.TemporaryFile() as said:
        importing = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=said, stderr=said)
        assert importing.stdin is not None
        with (
            suppress(BrokenPipeError),
            importing.stdin as pipe,
            tarfile.open(archive) as saved,
            tarfile.open(fileobj=pipe, mode="w|", bufsize=1 << 20) as out,
        ):
            write(saved, read(saved), known, out)
        if importing.wait() != 0:
            said.seek(0)
            raise StepFailed(f"{node} refuses the images: {said.read().decode().strip()}")


def _descriptor(media_type: str, digest: str, size: int) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest, "size": size}


def _qualified(names: Iterable[str]) -> set[str]:
    """Return names as containerd has them: with a registry, Docker Hub's when there is none."""
    return {n if "." in n.partition("/")[0] else f"docker.io/{n}" for n in names}


def _blob_path(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _content(saved: tarfile.TarFile, member: str) -> bytes:
    file = saved.extractfile(member)
    if file is None:
        raise StepFailed(f"docker save wrote no {member}")
    return file.read()


def _add(out: tarfile.TarFile, name: str, content: bytes) -> None:
    header = tarfile.TarInfo(name)
    header.size = len(content)
    out.addfile(header, io.BytesIO(content))
