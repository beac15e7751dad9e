"""Decides which node image the cluster is made from: the official one, or one built here.

An image that is already there is used without asking a registry. The one built here is known by
a digest of everything that goes into it, and shared by all checkouts of this machine.
"""

from __future__ import annotations

import hashlib
import os
import platform
from pathlib import Path

from cluster import golang, node_build
from cluster.kind import KIND_VERSION
from cluster.locks import held
from cluster.places import Places
from cluster.prerequisites import find, require
from cluster.progress import Progress
from cluster.registry import present, pulled

# What this version of kind was released with.
OFFICIAL = (
    "kindest/node:v1.37.0@sha256:a1ed56cfb0e7b93589bdf97c8cd566405a265939e3620fc4f5de89adff580ae5"
)


def ensure(places: Places, progress: Progress) -> str:
    """Return the name of a node image that Docker has; pull or build it when there is none."""
    built_here = f"moeops/kind-node:{sources_digest(places.node_files)}"
    for image in (OFFICIAL, built_here):
        if present(image, progress):
            return image
    with held(places.cache / "node-image.lock"):
        if present(built_here, progress):  # by another checkout, meanwhile
            return built_here
        if pulled(OFFICIAL, progress):
            return OFFICIAL
        progress.say("the official node image cannot be pulled; building one (minutes, once)")
        require(("mmdebstrap",), places, progress)
        node_build.build(places, built_here, golang.go(places, progress), progress)
    return built_here


def kind(places: Places, progress: Progress) -> Path:
    """Return kind's path: the one of the project's version, installed when it is missing."""
    found = find("kind")
    if found and f" {KIND_VERSION} " in progress.run([found, "version"]):
        return Path(found).resolve()  # not the link to it that a checkout has, which is made anew
    return golang.program(places, "sigs.k8s.io/kind", KIND_VERSION, progress)


def sources_digest(folder: Path) -> str:
    """Return twelve hex digits that change with anything that makes the image what it is."""
    made_with = (node_build.RECIPE, node_build.KUBERNETES, KIND_VERSION, platform.machine())
    digest = hashlib.sha256(" ".join(made_with).encode())
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(b"\0" + os.fsencode(file.relative_to(folder)) + b"\0" + file.read_bytes())
    return digest.hexdigest()[:12]
