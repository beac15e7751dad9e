"""Finds the image with Python that the project's images are made from, or makes one.

Its Python has the minor version of the checkout's environment, because pods of a local cluster
use packages of that environment.
"""

from __future__ import annotations

import hashlib
import sys

from cluster.debian import release, root_file_system
from cluster.places import Places
from cluster.prerequisites import require
from cluster.progress import Progress, StepFailed
from cluster.registry import present, pulled

# The smallest Debian that runs Python packages: no package manager, no users, one shell.
_PACKAGES = (
    "base-files",
    "ca-certificates",
    "dash",
    "libc6",
    "libgcc-s1",
    "libpython3-stdlib",
    "libstdc++6",
    "python3-minimal",
)
_HOOKS = (
    'mkdir -p "$1/etc/ssl/certs" "$1/tmp"; chmod 1777 "$1/tmp"',
    'cat "$1"/usr/share/ca-certificates/mozilla/*.crt > "$1/etc/ssl/certs/ca-certificates.crt"',
    'echo "hosts: files dns" > "$1/etc/nsswitch.conf"',
    'cd "$1/usr/share" && rm -rf doc info lintian locale man',
)


def ensure(places: Places, progress: Progress) -> str:
    """Return the name of a base image that Docker has; pull or make it when there is none."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    official = f"python:{version}-slim"
    if present(official, progress):
        return official
    made_of = repr((_PACKAGES, _HOOKS, version, release()))
    made_here = f"moeops/python:{version}-{hashlib.sha256(made_of.encode()).hexdigest()[:12]}"
    if present(made_here, progress):
        return made_here
    if pulled(official, progress):
        return official
    _make(made_here, version, places, progress)
    return made_here


def _make(image: str, version: str, places: Places, progress: Progress) -> None:
    require(("mmdebstrap",), places, progress)
    archive = places.cache / f"{image.replace('/', '-')}.tar"
    with progress.step(f"making a base image with Python {version} from Debian's packages"):
        root_file_system(archive, _PACKAGES, "extract", progress, _HOOKS)
        progress.run(["docker", "import", archive, image])
        archive.unlink()
    ask = ["docker", "run", "--rm", "--network", "none", image, "python3", "--version"]
    if f"Python {version}." not in progress.run(ask):
        progress.run(["docker", "rmi", image])
        raise StepFailed(
            f"Debian's Python is not {version}, which the environment has; "
            "make it anew with Debian's own: rm -r .venv, then run make with /usr/bin/python3"
        )
