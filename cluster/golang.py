"""Finds a Go that is new enough, or gets one that is for this project alone; builds with it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from cluster import environment
from cluster.locks import held
from cluster.places import Places
from cluster.prerequisites import find
from cluster.progress import Command, Progress, StepFailed

NEEDED = (1, 26)


def parse_version(said: str) -> tuple[int, int] | None:
    """Read (major, minor) from what `go version` says."""
    found = re.search(r"\bgo(\d+)\.(\d+)", said)
    return (int(found[1]), int(found[2])) if found else None


def go(places: Places, progress: Progress) -> Path:
    """Return a Go of at least the needed version. Raises StepFailed where none can be had."""
    tools = environment.tools_python(places, progress)
    private = tools.with_name("go")
    for candidate in (find("go"), "/usr/local/go/bin/go", private):
        if candidate and (_version(Path(candidate)) or (0, 0)) >= NEEDED:
            return Path(candidate)
    with progress.step("getting Go"), held(places.cache / "go.lock"):
        lock = places.root / "cluster" / "go.lock"
        progress.run([tools, "-m", "pip", "install", "--quiet", "--require-hashes", "-r", lock])
    if (_version(private) or (0, 0)) < NEEDED:
        raise StepFailed(
            f"Go {NEEDED[0]}.{NEEDED[1]} or newer is needed on PATH: kind, helm and the node image "
            "are built where they cannot be had otherwise"
        )
    return private


def build(
    go: Path, module: Path, target: Path, progress: Progress, linker_flags: str = "-s -w"
) -> None:
    """Compile the module in that folder into one static program."""
    command: Command = [
        go,
        "build",
        "-trimpath",
        "-ldflags",
        linker_flags,
        "-o",
        target,
        ".",
    ]
    progress.run(command, cwd=module, env={"CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false"})


def program(
    places: Places,
    package: str,
    version: str,
    progress: Progress,
    linker_flags: str = "-s -w",
    takes: str = "",
) -> Path:
    """Return the path of a published program, built once and kept in the shared cache.

    `takes` says how long that takes, for who waits. Raises StepFailed where it cannot be built.
    """
    name = package.rpartition("/")[2]
    own = places.tools / f"{name}-{version}"
    with held(places.cache / f"{name}.lock"):
        if not own.exists():
            found = go(places, progress)
            places.tools.mkdir(parents=True, exist_ok=True)
            command: Command = [found, "install", "-ldflags", linker_flags, f"{package}@{version}"]
            with progress.step(f"building {name} {version}{takes}"):
                progress.run(command, env={"CGO_ENABLED": "0", "GOBIN": str(places.tools)})
            (places.tools / name).replace(own)
    return own


def _version(go: Path) -> tuple[int, int] | None:
    try:
        said = subprocess.run([go, "version"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return parse_version(said)
