"""Installs moeops into a cluster, and makes namespaces that mixtures can live in.

The chart `charts/moeops` is the one source of an installation; it gets the names of the images
that were built here. Installing again changes nothing that is already so.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluster import images
from cluster.helm import Helm
from cluster.kind import ARTIFACTS_IN_NODE
from cluster.places import Places
from cluster.progress import Command, Progress, StepFailed

RELEASE = "moeops"
SYSTEM_NAMESPACE = "moeops-system"
# Claims of a namespace that `namespace` made, for `volumeClaims` of a Mixture.
ARTIFACTS_CLAIM = "moeops-artifacts"
SITE_PACKAGES_CLAIM = "moeops-site-packages"


class Kubectl:
    """Runs kubectl against the cluster that KUBECONFIG names, or else this checkout's own."""

    def __init__(self, places: Places, progress: Progress) -> None:
        own = places.state / "bin" / "kubectl"
        self._program = str(own) if own.exists() else "kubectl"
        self.config = os.environ.get("KUBECONFIG") or str(places.kubeconfig)
        self.is_local = Path(self.config).resolve() == places.kubeconfig
        self._env = {"KUBECONFIG": self.config}
        self._progress = progress

    def run(self, *arguments: str, stdin: str | None = None) -> str:
        """Return what kubectl prints. Raises StepFailed when it fails."""
        return self._progress.run([self._program, *arguments], stdin=stdin, env=self._env)

    def succeeds(self, *arguments: str) -> bool:
        command: Command = [self._program, *arguments]
        return self._progress.succeeds(command, env=self._env)

    def apply(self, manifests: str, namespace: str) -> None:
        """Apply manifests, of which those without a namespace go into the given one."""
        how = ("--server-side", "--force-conflicts", "--field-manager=moeops-install")
        self.run("apply", *how, "--namespace", namespace, "--filename", "-", stdin=manifests)


def install(places: Places, kubectl: Kubectl, helm: Helm, progress: Progress) -> None:
    """Install the chart with the images that were built here; wait until the operator is ready."""
    with progress.step("installing the custom resources and the operator"):
        kubectl.apply(json.dumps(restricted_namespace(SYSTEM_NAMESPACE)), SYSTEM_NAMESPACE)
        if kubectl.is_local:
            _forget_interrupted(kubectl)
        try:
            helm.upgrade(places.root / "charts" / "moeops", values(images.references(places)))
        except StepFailed as failed:
            raise StepFailed(f"{failed}\n{_last_words(kubectl)}".strip()) from None
    progress.say(helm.notes())


def values(references: Mapping[str, str]) -> dict[str, Any]:
    """Return the chart's values that name the image of each program.

    Raises ValueError where one is missing.
    """
    lacking = [program for program in images.PROGRAMS if not references.get(program)]
    if lacking:
        raise ValueError(f"no image was built of {', '.join(lacking)}; run: make images")
    return {"images": {program: references[program] for program in images.PROGRAMS}}


def _forget_interrupted(kubectl: Kubectl) -> None:
    """Have helm forget what was interrupted in its middle: it would begin nothing beside it."""
    pending = "status in (pending-install, pending-upgrade, pending-rollback)"
    selector = f"owner=helm,name={RELEASE},{pending}"
    kubectl.run("delete", "secrets", "--namespace", SYSTEM_NAMESPACE, "--selector", selector)


def _last_words(kubectl: Kubectl) -> str:
    """Return what operators that did not become ready have said; nothing where there are none."""
    deployment = (f"deployment/{RELEASE}-operator", "--namespace", SYSTEM_NAMESPACE)
    try:
        said = kubectl.run("logs", *deployment, "--tail=20", "--all-pods")
    except StepFailed:
        return ""
    return f"the operator says:\n{said}"


def namespace(places: Places, name: str, kubectl: Kubectl, progress: Progress) -> None:
    """Make a namespace for mixtures; in the local cluster also its claims of mounted folders.

    A volume belongs to the one claim it names. One that is left over from a namespace that is
    gone can never be bound again, so it is made anew.
    """
    with progress.step(f"making the namespace {name}"):
        kubectl.apply(json.dumps(restricted_namespace(name)), name)
        if not kubectl.is_local:
            return
        site = str(places.site_packages)
        for claim, path in ((ARTIFACTS_CLAIM, ARTIFACTS_IN_NODE), (SITE_PACKAGES_CLAIM, site)):
            if not kubectl.succeeds("get", "pvc", claim, "--namespace", name):
                left_over = f"pv/{volume_name(name, claim)}"
                kubectl.run("delete", left_over, "--ignore-not-found", "--wait")
                kubectl.apply(json.dumps(mounted_folder(name, claim, path)), name)


def restricted_namespace(name: str) -> dict[str, Any]:
    """A namespace that enforces the strictest Pod Security profile."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "labels": labels},
    }


def volume_name(namespace: str, claim: str) -> str:
    """The name of the volume that is bound to a claim; volumes have no namespace."""
    return f"{namespace}-{claim}"


def mounted_folder(namespace: str, claim: str, path: str) -> dict[str, Any]:
    """A folder of every node as a volume that many pods may read, and the claim bound to it."""
    size, modes = {"storage": "16Gi"}, ["ReadOnlyMany"]
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": volume_name(namespace, claim)},
        "spec": {
            "capacity": size,
            "accessModes": modes,
            "storageClassName": "",
            "persistentVolumeReclaimPolicy": "Retain",
            "hostPath": {"path": path, "type": "Directory"},
            "claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "namespace": namespace,
                "name": claim,
            },
        },
    }
    bound = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": claim, "namespace": namespace},
        "spec": {
            "accessModes": modes,
            "storageClassName": "",
            "volumeName": volume_name(namespace, claim),
            "resources": {"requests": size},
        },
    }
    return {"apiVersion": "v1", "kind": "List", "items": [volume, bound]}
