"""Downloads the packages of the images on the host, where pip is set up to find them."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from cluster import environment
from cluster.places import Places
from cluster.progress import Command, Progress

_LISTS = ("build", "common", "shared", "operator", "router")


def ensure(places: Places, progress: Progress, *, torch: bool) -> Path:
    """Return a folder with a wheel of every package that the images need, and pip as pip.whl.

    It is named after its content. Digests are checked against requirements.lock.
    """
    python = environment.tools_python(places, progress)
    lists = [f"{name}.txt" for name in (*_LISTS, *(("worker", "evaluator") if torch else ()))]
    images = places.root / "images"
    pins: Command = [python, images / "pins.py", places.root / "requirements.lock"]
    wanted = progress.run([*pins, *(images / name for name in lists)])
    tools = (places.root / "cluster" / "tools.lock").read_text()
    digest = hashlib.sha256(f"{wanted}{tools}".encode()).hexdigest()[:16]
    folder = places.cache / "wheels" / digest
    if not folder.exists():
        _download(folder, wanted, python, places, progress)
    return folder


def _download(folder: Path, wanted: str, python: Path, places: Places, progress: Progress) -> None:
    fresh = folder.with_suffix(".new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    lock = fresh / "wanted.lock"
    lock.write_text(wanted)
    pip: Command = [python, "-m", "pip", "wheel", "--no-deps", "--require-hashes"]
    pip += ["--wheel-dir", fresh, "--requirement"]
    with progress.step("downloading the packages of the images"):
        progress.run([*pip, lock])
        progress.run([*pip, places.root / "cluster" / "tools.lock"])
    next(fresh.glob("pip-*.whl")).rename(fresh / "pip.whl")
    for unneeded in fresh.glob("uv-*.whl"):
        unneeded.unlink()
    fresh.replace(folder)
