"""Finds a helm that is new enough, or builds one from its Go module; runs it for one release.

What is built is kept in the shared cache. Helm 4 is not taken: nothing here was tried with it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluster import golang, tools
from cluster.places import Places
from cluster.prerequisites import find
from cluster.progress import Command, Progress, StepFailed

NAME = "helm"
VERSION = "v3.22.0"
NEEDED = (3, 17)  # the first that takes over what was installed without it
_KUBERNETES = ("1", "37")  # of the client in that version: what it assumes without a cluster
_MODULE = "helm.sh/helm/v3"
_WAIT = "180s"


def ensure(places: Places, progress: Progress) -> Path:
    """Return the path of a helm, which `.moe/bin` has from then on; build one where there is none.

    Raises StepFailed where that is not possible.
    """
    program = _on_path(progress) or _built(places, progress)
    tools.link(places, {NAME: program})
    return program


def parse_version(said: str) -> tuple[int, int] | None:
    """Read (major, minor) from what `helm version --short` says."""
    found = re.match(r"v(\d+)\.(\d+)", said.strip())
    return (int(found[1]), int(found[2])) if found else None


def usable(version: tuple[int, int] | None) -> bool:
    """Tell whether that version can be used here."""
    return version is not None and NEEDED <= version < (NEEDED[0] + 1, 0)


class Helm:
    """Runs helm against one cluster, for the release `name` in a namespace of its own."""

    def __init__(
        self, program: Path, kubeconfig: str, name: str, namespace: str, progress: Progress
    ) -> None:
        self._program = program
        self._env = {"KUBECONFIG": kubeconfig}
        self._name = name
        self._namespace = namespace
        self._progress = progress

    def upgrade(self, chart: Path, values: Mapping[str, Any]) -> None:
        """Install or upgrade, and wait until all is ready. Raises StepFailed.

        Objects that are there already, but not of the release, are taken over.
        """
        flags = ("--install", "--take-ownership", "--wait", f"--timeout={_WAIT}", "--values=-")
        self._run("upgrade", *flags, self._name, chart, stdin=json.dumps(values))

    def notes(self) -> str:
        """Return what the chart says to whoever installed it."""
        said = self._run("get", "notes", self._name).strip()
        return said.removeprefix("NOTES:").strip()

    def _run(self, *words: str | Path, stdin: str | None = None) -> str:
        command: Command = [self._program, *words, "--namespace", self._namespace]
        return self._progress.run(command, stdin=stdin, env=self._env)


def _on_path(progress: Progress) -> Path | None:
    found = find(NAME)
    if not found:
        return None
    path = Path(found).resolve()  # not the link to it that a checkout has, which is made anew
    try:
        said = progress.run([path, "version", "--short"])
    except StepFailed:
        return None
    return path if usable(parse_version(said)) else None


def _built(places: Places, progress: Progress) -> Path:
    package, takes = f"{_MODULE}/cmd/{NAME}", " (minutes, once)"
    return golang.program(places, package, VERSION, progress, _stamps(), takes)


def _stamps() -> str:
    """Return linker flags that say what helm's own releases say of themselves."""
    flags = ["-s", "-w", f"-X {_MODULE}/internal/version.version={VERSION}"]
    for package in ("chartutil", "lint/rules"):
        for part, value in zip(("Major", "Minor"), _KUBERNETES, strict=True):
            flags.append(f"-X {_MODULE}/pkg/{package}.k8sVersion{part}={value}")
    return " ".join(flags)
