"""Builds a kind node image from Go modules and Debian packages, where none can be pulled.

One Go program is every part of Kubernetes, by the name that it is called by. The image is a Debian
root file system with containerd, kind's own files out of kind's Go module, that program, and the
images of the control plane in containerd's store. Whether to build is decided elsewhere.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

from cluster import golang
from cluster.debian import root_file_system
from cluster.kind import KIND_VERSION
from cluster.places import Places
from cluster.progress import Command, Progress, StepFailed

KUBERNETES = "v1.36.3"  # the newest that works with Debian 12's containerd, 1.6
RECIPE = "1"  # to be raised with every change of this file that changes the image
PAUSE = "registry.k8s.io/pause:3.10"  # the one that kind's containerd configuration names
_NODE_FILES = (
    "pod-network.sh",
    "pod-network.service",
    "default-cni.yaml",
    "default-storage.yaml",
)
_KUBE_PARTS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy")


def build(places: Places, image: str, go: Path, progress: Progress) -> None:
    """Build the image; what an interrupted build has finished is used by the next."""
    work = places.cache / "node-build" / image.rpartition(":")[2]
    programs = work / "bin"
    programs.mkdir(parents=True, exist_ok=True)
    _compile(places.node_files, programs, go, progress)
    with progress.step("root file systems of the node image"):
        packages = (places.node_files / "packages.txt").read_text().split()
        root_file_system(work / "node.tar", packages, "minbase", progress)
        # With netbase: without /etc/protocols nft tells kube-proxy of protocol 6 where that means
        # tcp, and at its hourly full sync kube-proxy would delete the rules of all Services.
        small = (places.node_files / "kube" / "packages.txt").read_text().split()
        root_file_system(work / "small.tar", small, "extract", progress)
    with progress.step("images of the control plane"):
        _save_components(places.node_files, work, progress)
    with progress.step("the node image"):
        _assemble(places.node_files, work, image, go, progress)
    shutil.rmtree(work)


def _compile(sources: Path, programs: Path, go: Path, progress: Progress) -> None:
    flags = ["-s", "-w"]
    for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version"):
        major, minor, _ = KUBERNETES.removeprefix("v").split(".")
        stamps = {"gitVersion": KUBERNETES, "gitMajor": major, "gitMinor": minor}
        flags += [f"-X {package}.{name}={value}" for name, value in stamps.items()]
    for name in ("kube", "etcd", "coredns", "pause"):
        with progress.step(f"compiling {name}"):
            stamp = " ".join(flags) if name == "kube" else "-s -w"
            golang.build(go, sources / name, programs / name, progress, stamp)


def _save_components(sources: Path, work: Path, progress: Progress) -> None:
    """Build the control plane's images and save them in one file, under their official names."""
    kubeadm = work / "bin" / "kubeadm"
    kubeadm.unlink(missing_ok=True)
    kubeadm.symlink_to("kube")
    listing: Command = [
        kubeadm,
        "config",
        "images",
        "list",
        "--kubernetes-version",
        KUBERNETES,
    ]
    official = progress.run(listing).split()
    names = {
        "etcd": next(name for name in official if "/etcd:" in name),
        "coredns": next(name for name in official if "/coredns:" in name),
        "pause": PAUSE,
    }
    parts = [f"registry.k8s.io/{part}:{KUBERNETES}" for part in _KUBE_PARTS]
    tags = [*parts, *names.values()]
    try:
        files = {"root.tar": work / "small.tar", "kube": work / "bin" / "kube"}
        _docker_build(sources / "kube", files, parts[0], progress)
        for tag in parts[1:]:
            progress.run(["docker", "tag", parts[0], tag])
        for program, tag in names.items():
            _docker_build(sources / program, {program: work / "bin" / program}, tag, progress)
        progress.run(["docker", "save", "--output", work / "images.tar", *tags])
    finally:
        progress.succeeds(["docker", "rmi", *tags])


def _assemble(sources: Path, work: Path, image: str, go: Path, progress: Progress) -> None:
    """Build the node's file system, then import the control plane's images inside of it."""
    said = progress.run([go, "mod", "download", "-json", f"sigs.k8s.io/kind@{KIND_VERSION}"])
    files = {
        "node.tar": work / "node.tar",
        "kube": work / "bin" / "kube",
        "files": Path(json.loads(said)["Dir"]) / "images" / "base" / "files",
    }
    files |= {name: sources / name for name in _NODE_FILES}
    base = f"{image}-base"
    _docker_build(sources, files, base, progress, "--build-arg", f"VERSION={KUBERNETES}")
    start = ["docker", "run", "--detach", "--privileged", "--entrypoint", "sleep"]
    mount = f"{work / 'images.tar'}:/images.tar:ro"
    box = progress.run([*start, "--volume", mount, base, "infinity"]).strip()
    try:
        _import_images(box, progress)
        entrypoint = 'ENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]'
        progress.run(["docker", "commit", "--change", entrypoint, box, image])
    finally:
        progress.run(["docker", "rm", "--force", box])
        progress.succeeds(["docker", "rmi", base])


def _import_images(box: str, progress: Progress) -> None:
    progress.run(["docker", "exec", "--detach", box, "sh", "-c", "containerd >/import.log 2>&1"])
    until = time.monotonic() + 30
    while not progress.succeeds(["docker", "exec", box, "ctr", "version"]):
        if time.monotonic() > until:
            raise StepFailed("containerd does not start in the node image")
        time.sleep(0.3)
    images = ["ctr", "--namespace", "k8s.io", "images", "import", "--all-platforms", "--no-unpack"]
    progress.run(["docker", "exec", box, *images, "/images.tar"])
    stop = "pkill -x containerd; sleep 1; rm -rf /run/containerd /import.log"
    progress.run(["docker", "exec", box, "sh", "-c", stop])


def _docker_build(
    dockerfile: Path, files: dict[str, Path], tag: str, progress: Progress, *options: str
) -> None:
    """Build from the Dockerfile in that folder, with these files as the whole context."""
    context = Path(f"{next(iter(files.values()))}.context")
    shutil.rmtree(context, ignore_errors=True)
    context.mkdir()
    try:
        shutil.copy(dockerfile / "Dockerfile", context)
        for name, source in files.items():
            _place(source, context / name)
        progress.run(["docker", "build", "--quiet", "--force-rm", *options, "--tag", tag, context])
    finally:
        shutil.rmtree(context)


def _place(source: Path, target: Path) -> None:
    """Put a file (hard-linked where possible: some are large) or a folder into a context."""
    if source.is_dir():
        shutil.copytree(source, target, copy_function=shutil.copyfile)
        for folder, _, _ in os.walk(target):
            Path(folder).chmod(0o755)  # folders of the Go module cache are read-only
        return
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
