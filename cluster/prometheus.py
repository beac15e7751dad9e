"""Gets Prometheus for tests: the programs of Debian's package, which is not installed.

Anybody may download a package with apt, not only root, and no service is started. The programs
need nothing but libc; they are kept in the cache under the name of their package, which tells
version and architecture. Where apt does not have it, those on PATH are taken.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from cluster.locks import held
from cluster.places import Places
from cluster.progress import Progress, StepFailed

NAME = "prometheus"
PROGRAMS = (NAME, "promtool")


def ensure(
    places: Places, find: Callable[[str], str | None], progress: Progress
) -> dict[str, Path]:
    """Return the programs by name; `find` looks on PATH, for where apt has none.

    Raises StepFailed saying how to get them, and what apt said.
    """
    try:
        return _unpacked(places, progress)
    except StepFailed as failed:
        found = {name: path for name in PROGRAMS if (path := find(name)) is not None}
        if len(found) == len(PROGRAMS):
            return {name: Path(path).resolve() for name, path in found.items()}
        missing = " and ".join(name for name in PROGRAMS if name not in found)
        raise StepFailed(
            f"missing: {missing}, which tests ask; on Debian apt downloads them, perhaps after: "
            "sudo apt-get update\n(elsewhere put both on PATH, from your system's packages or "
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


def _unpacked(places: Places, progress: Progress) -> dict[str, Path]:
    with held(places.cache / "apt.lock"):
        try:
            return _newest(places.cache / NAME, progress)
        except StepFailed:  # perhaps the lists are missing, or too old
            progress.run(["apt-get", "update"])
            return _newest(places.cache / NAME, progress)


def _newest(folder: Path, progress: Progress) -> dict[str, Path]:
    """Return the programs of the newest package, from the folder if they were kept there."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as made:
        fresh = Path(made)  # empty: a file that is there already has no URI for apt
        asked = progress.run(["apt-get", "--print-uris", "download", NAME], cwd=fresh)
        file = read_file_name(asked)
        version = file.removesuffix(".deb").removeprefix(NAME)
        programs = {name: folder / f"{name}{version}" for name in PROGRAMS}
        if not all(program.exists() for program in programs.values()):
            with progress.step(f"getting {NAME} out of Debian's package"):
                progress.run(["apt-get", "download", NAME], cwd=fresh)
                progress.run(["dpkg-deb", "--extract", file, "root"], cwd=fresh)
            for name, program in programs.items():
                (fresh / "root" / "usr" / "bin" / name).replace(program)
    return programs
