"""Takes kubectl, kube-apiserver and etcd out of the node image, for use without any node.

Tests start the API server that the cluster has, too. What is taken out is kept in the cache, by
the image's id; it needs Docker once.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from cluster.locks import held
from cluster.places import Places
from cluster.progress import Command, Progress, StepFailed

NAMES = ("kubectl", "kube-apiserver", "etcd")
_IN_IMAGES = {"kube-apiserver": "/usr/local/bin/kube-apiserver", "etcd": "/usr/local/bin/etcd"}


def ensure(places: Places, image: str, progress: Progress) -> Mapping[str, Path]:
    """Return the paths of the three programs of that node image."""
    image_id = progress.run(["docker", "image", "inspect", "--format", "{{.Id}}", image]).strip()
    folder = places.cache / "node" / image_id.removeprefix("sha256:")[:16]
    with held(places.cache / "kube-binaries.lock"):
        if not folder.exists():
            fresh = folder.with_suffix(".new")
            fresh.mkdir(parents=True, exist_ok=True)
            with progress.step("taking kubectl, kube-apiserver and etcd out of the node image"):
                _take_out(image, fresh, progress)
            fresh.replace(folder)
    return {name: folder / name for name in NAMES}


def _take_out(image: str, folder: Path, progress: Progress) -> None:
    start = ["docker", "run", "--detach", "--privileged", "--entrypoint", "sleep"]
    mounts = ["--volume", "/var", "--volume", f"{folder}:/out"]
    box = progress.run([*start, *mounts, image, "infinity"]).strip()
    try:
        inside: Command = ["docker", "exec", box]
        progress.run([*inside, "cp", "--dereference", "/usr/bin/kubectl", "/out/kubectl"])
        progress.run(["docker", "exec", "--detach", box, "containerd"])
        ctr: Command = [*inside, "ctr", "--namespace", "k8s.io"]
        _await_containerd([*ctr, "version"], progress)
        names = progress.run([*ctr, "images", "list", "--quiet"]).split()
        for program, path in _IN_IMAGES.items():
            name = next(name for name in names if f"/{program}:" in name or f"/{program}-" in name)
            progress.run([*inside, "mkdir", "-p", f"/mnt/{program}"])
            progress.run([*ctr, "images", "mount", name, f"/mnt/{program}"])
            progress.run(
                [*inside, "cp", "--dereference", f"/mnt/{program}{path}", f"/out/{program}"]
            )
    finally:
        progress.run(["docker", "rm", "--force", "--volumes", box])


def _await_containerd(version: Command, progress: Progress) -> None:
    until = time.monotonic() + 30
    while not progress.succeeds(version):
        if time.monotonic() > until:
            raise StepFailed("containerd does not start in the node image")
        time.sleep(0.2)
