"""Renders the chart as helm would install it, and says what helm says of wrong values."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "moeops"
SYSTEM = "moeops-system"
MUTATING = "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy"
TEAMS = {"scope": {"kind": "Namespaces", "namespaces": ["team-a", "team-b"]}}

Body = dict[str, Any]
Values = Mapping[str, Any]


def helm(*words: str | Path, stdin: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    """Run the helm that `make binaries` gets."""
    program = ROOT / ".moe" / "bin" / "helm"
    if not program.exists():
        pytest.fail("there is no helm to test with; run: make binaries")
    command = [str(word) for word in (program, *words)]
    return subprocess.run(
        command, input=stdin, capture_output=True, text=True, check=False, env=env or None
    )


def text(values: Values, *flags: str, release: str = "moeops") -> str:
    """Return what the chart renders to, for the newest Kubernetes unless `flags` say otherwise."""
    where = ("template", release, CHART, "--namespace", SYSTEM, "--values=-")
    known = flags or (f"--api-versions={MUTATING}",)
    done = helm(*where, *known, stdin=json.dumps(values))
    assert done.returncode == 0, done.stderr
    return done.stdout


def render(values: Values | None = None, *flags: str, release: str = "moeops") -> Sequence[Body]:
    """Return the objects that the chart makes."""
    said = text(values or {}, *flags, release=release)
    return [body for body in yaml.safe_load_all(said) if body]


def refused(values: Values) -> str:
    """Return what helm says of values that it does not take."""
    done = helm("template", "moeops", CHART, "--values=-", stdin=json.dumps(values))
    assert done.returncode != 0, "these values were taken"
    return done.stderr


def of(bodies: Sequence[Body], kind: str) -> Mapping[str, Body]:
    """Return the objects of a kind, by namespace (where there is one) and name."""
    return {key(body)[1]: body for body in bodies if body["kind"] == kind}


def one(bodies: Sequence[Body], kind: str) -> Body:
    """Return the only object of a kind."""
    (found,) = of(bodies, kind).values()
    return found


def pods(bodies: Sequence[Body]) -> Iterator[Body]:
    """Give the spec of each pod that the objects make."""
    for body in bodies:
        if body["kind"] == "Pod":
            yield body["spec"]
        elif "template" in body.get("spec", {}):
            yield body["spec"]["template"]["spec"]


def crds() -> Mapping[str, Body]:
    """Return the definitions in `crds/`, by name."""
    read = (yaml.safe_load(path.read_text()) for path in sorted((ROOT / "crds").glob("*.yaml")))
    return {crd["metadata"]["name"]: crd for crd in read}


def key(body: Body) -> tuple[str, str]:
    """Return kind and name, with the namespace before it where there is one."""
    meta = body["metadata"]
    return body["kind"], "/".join(part for part in (meta.get("namespace"), meta["name"]) if part)
