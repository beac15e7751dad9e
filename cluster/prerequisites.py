"""Finds the programs that are needed, and gets the missing ones from Debian when that is possible.

Only root on a machine with apt gets anything installed; anybody else is told the command.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Mapping, Sequence

from cluster.locks import held
from cluster.places import Places
from cluster.progress import Progress, StepFailed

# Program, and the Debian package that holds it. Debian 13 has the client in a package of its own.
PACKAGES: Mapping[str, str] = {
    "docker": "docker.io",
    "dockerd": "docker.io",
    "iptables": "iptables",
    "jq": "jq",
    "mmdebstrap": "mmdebstrap",
}


def find(program: str) -> str | None:
    """Return the path of a program, looking where root's programs are too."""
    return shutil.which(
        program, path=os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin"
    )


def require(programs: tuple[str, ...], places: Places, progress: Progress) -> None:
    """See to it that these programs are there.

    Raises StepFailed naming what is missing and the command that installs it.
    """
    missing = [program for program in programs if find(program) is None]
    if missing:
        packages = sorted({PACKAGES[program] for program in missing})
        _install(missing, packages, places, progress)
        still = [program for program in programs if find(program) is None]
        if still:
            raise StepFailed(f"{', '.join(packages)} did not bring {', '.join(still)}")


def require_venv(places: Places, progress: Progress) -> None:
    """See to it that this Python can make environments; Debian keeps that in a package apart."""
    if importlib.util.find_spec("ensurepip") is None:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        _install([f"Python's ensurepip {version}"], [f"python{version}-venv"], places, progress)


def _install(
    missing: Sequence[str], packages: Sequence[str], places: Places, progress: Progress
) -> None:
    command = ["apt-get", "install", "--yes", "--no-install-recommends", *packages]
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise StepFailed(
            f"missing: {', '.join(missing)}; install with: sudo {' '.join(command)}\n"
            "(or their packages on your system), then run this again"
        )
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    with progress.step(f"installing {', '.join(packages)}"), held(places.cache / "apt.lock"):
        if not progress.succeeds(command, env=quiet):  # perhaps the lists are missing, or too old
            progress.run(["apt-get", "update"], env=quiet)
            progress.run(command, env=quiet)
