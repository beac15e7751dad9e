"""Installs moeops into a cluster, and makes namespaces that mixtures can live in.

Everything is applied from the files in `crds/` and `operator/manifests/`, with the names of the
images that were built here. Applying again changes nothing that is already so.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluster import images
from cluster.kind import ARTIFACTS_IN_NODE
from cluster.places import Places
from cluster.progress import Command, Progress, StepFailed

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


def install(places: Places, kubectl: Kubectl, progress: Progress) -> None:
    """Install custom resources, permissions and the operator; wait until it is ready."""
    with progress.step("installing the custom resources"):
        crds = [path.read_text() for path in sorted((places.root / "crds").glob("*.yaml"))]
        kubectl.apply("\n---\n".join(crds), SYSTEM_NAMESPACE)
        names = re.findall(r"^  name: (\S+\.moeops\.dev)$", "\n".join(crds), re.MULTILINE)
        resources = [f"crd/{name}" for name in names]
        kubectl.run("wait", "--for=condition=Established", "--timeout=60s", *resources)
    with progress.step("installing the operator"):
        kubectl.apply(json.dumps(restricted_namespace(SYSTEM_NAMESPACE)), SYSTEM_NAMESPACE)
        files = sorted((places.root / "operator" / "manifests").glob("*.yaml"))
        manifests, skipped = known(
            "\n---\n".join(file.read_text() for file in files), admission_kinds(kubectl)
        )
        kubectl.apply(with_images(manifests, images.references(places)), SYSTEM_NAMESPACE)
        deployment = ("deployment/moeops-operator", "--namespace", SYSTEM_NAMESPACE)
        if not kubectl.succeeds("rollout", "status", *deployment, "--timeout=120s"):
            said = kubectl.run("logs", *deployment, "--tail=20", "--all-pods")
            raise StepFailed(f"the operator does not become ready; it says:\n{said}")

    for kind in skipped:
        progress.say(
            f"left out: this API server does not know {kind}; whoever creates an Override must "
            "give spec.requestedBy, as `kubectl moe` does"
        )


def admission_kinds(kubectl: Kubectl) -> frozenset[str]:
    """Return the kinds of admission policies that the API server knows."""
    served = json.loads(kubectl.run("get", "--raw", "/apis/admissionregistration.k8s.io/v1"))
    return frozenset(str(resource["kind"]) for resource in served["resources"])


def known(manifests: str, kinds: frozenset[str]) -> tuple[str, list[str]]:
    """Leave out the admission policies that an API server does not know. Returns their kinds."""
    kept, skipped = [], []
    for document in manifests.split("\n---\n"):
        kind = re.search(r"^kind: (\w+)$", document, re.MULTILINE)
        if kind and kind[1].startswith("MutatingAdmissionPolicy") and kind[1] not in kinds:
            skipped.append(kind[1])
        else:
            kept.append(document)
    return "\n---\n".join(kept), skipped


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


def with_images(manifests: str, references: Mapping[str, str]) -> str:
    """Put image references in the place of the programs' bare names, `moeops/operator` and so on.

    Raises ValueError when a program's name is nowhere in the manifests.
    """
    for program, image in references.items():
        pattern = rf"(?<=: )moeops/{program}(?=[\s,}}]|$)"
        manifests, count = re.subn(pattern, image, manifests)
        if not count:
            raise ValueError(f"no manifest names the image moeops/{program}")
    return manifests


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
