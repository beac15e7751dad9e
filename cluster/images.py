"""Builds the images of operator, router, worker and evaluator.

An image's tag is a digest of all that goes into it: what did not change is neither built nor
sent again. Whoever writes manifests asks `references` for the names.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from cluster import base_image, wheelhouse
from cluster.locks import held
from cluster.places import Places
from cluster.progress import Command, Progress, StepFailed
from cluster.registry import present

PROGRAMS = ("operator", "router", "worker", "evaluator")
# What images/Dockerfile copies.
_FOLDERS = (
    "artifacts",
    "core",
    "crds",
    "expert_worker",
    "images",
    "operator",
    "protos",
    "router_service",
    "tuning",
)
_FILES = ("LICENSE", "README.md", "pyproject.toml", "requirements.lock")
_NOT_SOURCES = ("__pycache__", "*_pb2*", "*.egg-info", ".mypy_cache", ".pytest_cache")


def references(places: Places) -> Mapping[str, str]:
    """Return the image reference of each program, as they were last built here.

    Raises StepFailed where none were built.
    """
    try:
        lines = _references_file(places).read_text().splitlines()
    except FileNotFoundError:
        raise StepFailed("no images were built yet; run: make images") from None
    return {name.lower(): image for name, _, image in (line.partition("=") for line in lines)}


def build(places: Places, prefix: str, progress: Progress, *, torch: bool) -> Mapping[str, str]:
    """Build what changed; return and write down the reference of each program's image.

    `prefix` is what stands before the programs' names, `torch` whether worker and evaluator have
    their own.
    """
    with held(places.cache / "images.lock"):
        base = base_image.ensure(places, progress)
        wheels = wheelhouse.ensure(places, progress, torch=torch)
        with _context(places, wheels) as context:
            tag = _digest(context, f"{base} {wheels.name}")
            built = {program: f"{prefix}{program}:{tag}" for program in PROGRAMS}
            for program, image in built.items():
                if not present(image, progress):
                    with progress.step(f"building {image}"):
                        _build_one(context, program, image, base, torch, progress)
    _drop_previous(places, built, progress)
    lines = "".join(f"{name.upper()}={image}\n" for name, image in built.items())
    _references_file(places).write_text(lines)
    return built


def push(images: Mapping[str, str], progress: Progress) -> None:
    """Push the images to the registry that their names begin with."""
    for image in images.values():
        with progress.step(f"pushing {image}"):
            progress.run(["docker", "push", "--quiet", image])


@contextmanager
def _context(places: Places, wheels: Path) -> Iterator[Path]:
    """Lay out what the Dockerfile reads, and only that; large files are hard-linked."""
    context = places.state / "context"
    shutil.rmtree(context, ignore_errors=True)
    context.mkdir(parents=True)
    ignored = shutil.ignore_patterns(*_NOT_SOURCES)
    try:
        for name in _FOLDERS:
            shutil.copytree(places.root / name, context / name, ignore=ignored)
        for name in _FILES:
            shutil.copyfile(places.root / name, context / name)
        shutil.copytree(wheels, context / "wheels", copy_function=_link_or_copy)
        yield context
    finally:
        shutil.rmtree(context)


def _digest(context: Path, more: str) -> str:
    """Return twelve hex digits for the sources in a context; the wheels are in `more`."""
    total = hashlib.sha256(more.encode())
    files = sorted(path for name in (*_FOLDERS, *_FILES) for path in _files(context / name))
    for file in files:
        total.update(b"\0" + os.fsencode(file.relative_to(context)) + b"\0" + file.read_bytes())
    return total.hexdigest()[:12]


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]


def _build_one(
    context: Path, program: str, image: str, base: str, torch: bool, progress: Progress
) -> None:
    arguments = {
        "BASE": base,
        "TORCH": "yes" if torch else "no",
        "PIP": "--no-index --find-links=/wheels",
    }
    command: Command = [
        "docker",
        "build",
        "--quiet",
        "--force-rm",
        "--target",
        program,
        "--tag",
        image,
    ]
    for name, value in arguments.items():
        command += ["--build-arg", f"{name}={value}"]
    progress.run([*command, "--file", context / "images" / "Dockerfile", context])


def _drop_previous(places: Places, built: Mapping[str, str], progress: Progress) -> None:
    """Remove the images that the new ones replace; their layers stay in use or are made again."""
    if _references_file(places).exists():
        old = set(references(places).values()) - set(built.values())
        if old:
            progress.succeeds(["docker", "rmi", "--no-prune", *sorted(old)])


def _references_file(places: Places) -> Path:
    return places.state / "images.env"


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
