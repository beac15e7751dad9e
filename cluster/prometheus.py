"""Gets a Prometheus for tests: the program of Debian's package, which is not installed.

Anybody may download a package with apt, not only root, and no service is started. The program
needs nothing but libc; it is kept in the cache under the name of its package, which tells version
and architecture. Where apt does not have it, the one on PATH is taken.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from cluster.locks import held
from cluster.places import Places
from cluster.progress import Progress, StepFailed

NAME = "prometheus"


def ensure(places: Places, on_path: str | None, progress: Progress) -> Path:
    """Return the path of a Prometheus; `on_path` is the one that is taken where apt has none.

    Raises StepFailed saying how to get one, and what apt said.
    """
    try:
        return _unpacked(places, progress)
    except StepFailed as failed:
        if on_path is not None:
            return Path(on_path).resolve()
        raise StepFailed(
            f"missing: {NAME}, which tests ask; on Debian apt downloads it, perhaps after: "
            "sudo apt-get update\n(elsewhere put it on PATH, from your system's packages or "
            f"https://prometheus.io/download), then run this again. Now apt fails: {failed}"
        ) from None


def read_file_name(said: str) -> str:
    """Return the package's file from `apt-get --print-uris download`: 'URI' FILE SIZE HASH.

    Raises StepFailed where it names none.
    """
    for line in said.splitlines():
        words = line.split()
        if line.startswith("'") and len(words) > 1 and words[1].endswith(".deb"):
            return words[1]
    raise StepFailed(f"apt-get says {said.strip()!r}; it must name the file of a package")


def _unpacked(places: Places, progress: Progress) -> Path:
    with held(places.cache / "apt.lock"):
        try:
            return _newest(places.cache / NAME, progress)
        except StepFailed:  # perhaps the lists are missing, or too old
            progress.run(["apt-get", "update"])
            return _newest(places.cache / NAME, progress)


def _newest(folder: Path, progress: Progress) -> Path:
    """Return the program of the newest package, from the folder if it was kept there."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as made:
        fresh = Path(made)  # empty: a file that is there already has no URI for apt
        asked = progress.run(["apt-get", "--print-uris", "download", NAME], cwd=fresh)
        file = read_file_name(asked)
        program = folder / file.removesuffix(".deb")
        if not program.exists():
            with progress.step(f"getting {NAME} out of Debian's package"):
                progress.run(["apt-get", "download", NAME], cwd=fresh)
                progress.run(["dpkg-deb", "--extract", file, "root"], cwd=fresh)
            (fresh / "root" / "usr" / "bin" / NAME).replace(program)
    return program
