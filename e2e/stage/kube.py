"""Talks to the cluster as a person does: with kubectl. Waits with a reason, never blindly."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

Body = dict[str, Any]
T = TypeVar("T")


class KubectlError(RuntimeError):
    """kubectl ended with an error; the message is what it wrote."""


class Timeout(AssertionError):
    """What was waited for did not come; the message says what was seen instead."""


def wait_for(
    what: str, look: Callable[[], T | None], timeout_s: float, interval_s: float = 0.2
) -> T:
    """Return what `look` gives as soon as it is not None (or False). Raises Timeout."""
    end = time.monotonic() + timeout_s
    while True:
        seen = look()
        if seen is not None and seen is not False:
            return seen
        if time.monotonic() > end:
            raise Timeout(f"after {timeout_s:g} s still not: {what}")
        time.sleep(interval_s)


class Kube:
    """One namespace of the cluster that KUBECONFIG names."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace

    def run(self, *arguments: str, stdin: str | None = None, timeout_s: float = 120) -> str:
        """Return what kubectl printed. Raises KubectlError with what it complained about."""
        done = subprocess.run(
            ["kubectl", "-n", self.namespace, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        if done.returncode != 0:
            raise KubectlError(done.stderr.strip() or done.stdout.strip())
        return done.stdout

    def apply(self, *what: Path | Body) -> str:
        """Apply files, folders or bodies, as `kubectl apply` does."""
        said = []
        for item in what:
            if isinstance(item, Path):
                said.append(self.run("apply", "-f", str(item)))
            else:
                said.append(self.run("apply", "-f", "-", stdin=json.dumps(item)))
        return "".join(said)

    def apply_dry(self, body: Body) -> str:
        """Have the API server check a body as if it were applied. Raises KubectlError."""
        return self.run("apply", "--dry-run=server", "-f", "-", stdin=json.dumps(body))

    def patch(self, kind: str, name: str, change: Mapping[str, Any], *more: str) -> None:
        self.run("patch", kind, name, "--type=merge", "-p", json.dumps(change), *more)

    def get(self, kind: str, name: str) -> Body | None:
        """Return an object, None where there is none."""
        found = self.run("get", kind, name, "-o", "json", "--ignore-not-found")
        return json.loads(found) if found else None

    def list(self, kind: str, selector: str = "") -> Sequence[Body]:
        query = ("-l", selector) if selector else ()
        items: list[Body] = json.loads(self.run("get", kind, "-o", "json", *query))["items"]
        return items

    def delete(self, kind: str, *names: str, wait: bool = True) -> None:
        self.run("delete", kind, *names, "--ignore-not-found", f"--wait={str(wait).lower()}")

    def table(self, mixture: str) -> Body:
        """Return the spec of a mixture's routing table."""
        body = self.get("routingtable", mixture)
        if body is None:
            raise KubectlError(f"there is no routing table {mixture}")
        spec: Body = body["spec"]
        return spec

    def table_row(self, mixture: str, expert: str) -> Body:
        """Return what the table says of the Expert object of that name."""
        return next(row for row in self.table(mixture)["experts"] if row["name"] == expert)

    def moe(self, *arguments: str, timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
        """Run `kubectl moe` as a person would; the caller looks at the exit code."""
        return subprocess.run(
            ["kubectl", "moe", *arguments, "-n", self.namespace],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )


def condition(body: Body, kind: str) -> Body:
    """Return a condition of an object, empty where there is none."""
    conditions = body.get("status", {}).get("conditions", [])
    return next((c for c in conditions if c["type"] == kind), {})
