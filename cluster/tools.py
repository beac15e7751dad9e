"""The checkout's folder of programs, and the file that makes a shell use them and the cluster."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path

from cluster.places import Places


def link(places: Places, programs: Mapping[str, Path]) -> None:
    """Put programs into `.moe/bin`, in the place of what had their names."""
    folder = _folder(places)
    folder.mkdir(parents=True, exist_ok=True)
    for name, target in programs.items():
        fresh = folder / f"{name}.new"
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(target)
        fresh.replace(folder / name)


def has(places: Places, names: Iterable[str]) -> bool:
    """Tell whether all these programs are there (the cache that they are in may be gone)."""
    return all((_folder(places) / name).exists() for name in names)


def write_env(places: Places, kubeconfig: str) -> Path:
    """Write what a shell is to source, and return the file."""
    path = f"{shlex.quote(str(_folder(places)))}:{shlex.quote(str(places.venv / 'bin'))}"
    places.env_file.write_text(
        "# Makes a shell use this checkout's programs and its cluster.\n"
        f"export KUBECONFIG={shlex.quote(kubeconfig)}\n"
        f"export PATH={path}:$PATH\n"
    )
    return places.env_file


def _folder(places: Places) -> Path:
    return places.state / "bin"
