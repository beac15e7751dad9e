"""The release that `make install` made, changed with helm as its owner would."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CHART = Path("charts", "moeops")
_SOURCES = ("charts", "crds")


class HelmError(RuntimeError):
    """helm ended with an error; the message is what it wrote."""


@dataclass(frozen=True, slots=True)
class Release:
    """One release in the namespace of the operator."""

    name: str = "moeops"
    namespace: str = "moeops-system"

    def values(self) -> dict[str, Any]:
        """Return the values that were given to it."""
        found: dict[str, Any] | None = json.loads(self._helm("get", "values", "--output=json"))
        return found or {}

    def revision(self) -> int:
        return int(json.loads(self._helm("status", "--output=json"))["version"])

    def upgrade(self, chart: Path, values: Mapping[str, Any], *flags: str) -> None:
        command = ("upgrade", str(chart), "--values=-", *flags)
        self._helm(*command, stdin=json.dumps(values))

    def roll_back(self, revision: int) -> None:
        self._helm("rollback", str(revision))

    def test(self) -> None:
        """Run `helm test`. Raises HelmError where something is amiss."""
        self._helm("test", "--timeout=120s")

    def _helm(self, *words: str, stdin: str = "") -> str:
        verbs = 2 if words[0] == "get" else 1
        command = ["helm", *words[:verbs], self.name, *words[verbs:], "--namespace", self.namespace]
        done = subprocess.run(
            command, input=stdin, capture_output=True, text=True, timeout=300, check=False
        )
        if done.returncode != 0:
            raise HelmError(done.stderr.strip())
        return done.stdout


def chart_before(folder: Path) -> Path | None:
    """Return the chart of the previous commit, unpacked into a folder; None where it had none."""
    command = ["git", "-C", str(ROOT), "archive", "HEAD~1", *_SOURCES]
    packed = subprocess.run(command, capture_output=True, check=False)
    if packed.returncode != 0:
        return None
    subprocess.run(["tar", "-x", "-C", str(folder)], input=packed.stdout, check=True)
    return folder / CHART if (folder / CHART / "Chart.yaml").exists() else None
