"""Packs `kubectl moe` and what it needs into one archive, from what is installed here.

That is as requirements.lock pins it, so nothing is downloaded. Parts of it are compiled: an archive
is for the system, the processor and the version of Python that it was made with. The same
environment gives the same bytes.
"""

from __future__ import annotations

import gzip
import sys
import tarfile
import tomllib
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from images.closure import closure

PROGRAM: Final = "kubectl-moe"
# Of moeops itself only these; the rest of its requirements is for routers and workers.
_OWN: Final = ("kubectl_moe", "moe_core", "moeops")
_NEEDED: Final = ("grpcio", "protobuf", "pyyaml")
_EXTRA: Final = "cli"
_SKIPPED: Final = ("__pycache__", "tests")
_UNUSED: Final = "kubernetes/aio/"  # a third of all
PYTHON: Final = f"python{sys.version_info[0]}.{sys.version_info[1]}"

_LAUNCHER: Final = f"""\
#!/bin/sh
# Runs kubectl moe from the folder that this file is in, behind the link that krew makes to it.
self=$0
while [ -L "$self" ]; do
    to=$(readlink "$self")
    case $to in
        /*) self=$to ;;
        *) self=$(dirname "$self")/$to ;;
    esac
done
if ! command -v {PYTHON} >/dev/null 2>&1; then
    echo "error: this archive of kubectl moe needs {PYTHON} in PATH" >&2
    exit 1
fi
exec {PYTHON} -I -c 'import sys
sys.path.insert(0, sys.argv.pop(1))
from kubectl_moe.__main__ import main
sys.exit(main())' "$(cd "$(dirname "$self")" && pwd)/lib" "$@"
"""


def pack(root: Path) -> bytes:
    """Return a .tar.gz: the program, its license, and lib/ with all that it imports."""
    members = {PROGRAM: _LAUNCHER.encode(), "LICENSE": (root / "LICENSE").read_bytes()}
    members |= {
        f"lib/{name}": path.read_bytes() for name, path in _library(root / "pyproject.toml")
    }
    packed = BytesIO()
    with (
        gzip.GzipFile(
            fileobj=packed, mode="wb", compresslevel=6, mtime=0, filename=""
        ) as compressed,
        tarfile.open(fileobj=compressed, mode="w") as archive,
    ):
        for name, data in sorted(members.items()):
            about = tarfile.TarInfo(name)
            about.size, about.mode = len(data), 0o755 if name == PROGRAM else 0o644
            archive.addfile(about, BytesIO(data))
    return packed.getvalue()


def _library(project: Path) -> Iterator[tuple[str, Path]]:
    """Give the files of lib/ and where they are here."""
    for package in _OWN:
        spec = find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise ModuleNotFoundError(f"{package} is not installed here; run: make venv")
        for folder in map(Path, spec.submodule_search_locations):
            yield from _tree(folder, package)
    moeops = distribution("moeops")
    yield f"moeops-{moeops.version}.dist-info/METADATA", _metadata(moeops)
    for name in sorted(needed(project)):
        found = distribution(name)
        for file in found.files or ():
            within = ".." not in file.parts and not set(_SKIPPED) & set(file.parts)
            if within and not str(file).startswith(_UNUSED):
                yield str(file), Path(str(found.locate_file(file)))


def _tree(folder: Path, name: str) -> Iterator[tuple[str, Path]]:
    """Give the files of a package; a linked folder is as one that is there."""
    for path in sorted(folder.iterdir()):
        if path.name in _SKIPPED or path.suffix in (".pyc", ".pyi"):
            continue
        if path.is_dir():
            yield from _tree(path, f"{name}/{path.name}")
        else:
            yield f"{name}/{path.name}", path


def _metadata(found: Distribution) -> Path:
    """Return the file by which the program knows its version."""
    file = next(file for file in found.files or () if file.name == "METADATA")
    return Path(str(found.locate_file(file)))


def needed(project: Path) -> frozenset[str]:
    """Return the packages that the program needs, beside moeops, from its pyproject.toml."""
    described = tomllib.loads(project.read_text())["project"]
    wanted = described["optional-dependencies"][_EXTRA]
    base = {canonicalize_name(Requirement(text).name): text for text in described["dependencies"]}
    return closure([*wanted, *(base[canonicalize_name(name)] for name in _NEEDED)])
