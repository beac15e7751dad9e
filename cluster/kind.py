"""Makes, starts and deletes this checkout's kind cluster.

A cluster is made as a whole or not at all: what an interruption leaves is deleted, at once or by
the next run. A cluster that runs is left as it is; nodes of it that were stopped are started.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cluster import record
from cluster.places import Places
from cluster.progress import Command, Progress, StepFailed
from cluster.record import Record

KIND_VERSION = "v0.33.0"
ARTIFACTS_IN_NODE = "/moe/artifacts"
_AUDIT_LOG = "/var/log/moe-audit"
_AUDIT_POLICY = "/etc/kubernetes/moe-audit"


def config(places: Places) -> dict[str, Any]:
    """Return kind's configuration: the nodes, their mounts, and timings for a lost node.

    A node that falls silent is noticed after 6 s instead of 40 s, and its pods are taken away at
    once, one after the other, also when most of the few nodes are gone.
    """
    audit = {"hostPath": str(places.audit), "containerPath": _AUDIT_LOG}
    policy = {
        "hostPath": str(places.root / "cluster" / "audit"),
        "containerPath": _AUDIT_POLICY,
        "readOnly": True,
    }
    site = str(places.site_packages)
    worker_mounts = [
        {"hostPath": site, "containerPath": site, "readOnly": True},
        {
            "hostPath": str(places.artifacts),
            "containerPath": ARTIFACTS_IN_NODE,
            "readOnly": True,
        },
    ]
    workers = [{"role": "worker", "extraMounts": worker_mounts} for _ in range(places.workers)]
    return {
        "kind": "Cluster",
        "apiVersion": "kind.x-k8s.io/v1alpha4",
        "networking": {"kubeProxyMode": "nftables"},
        "kubeadmConfigPatches": [json.dumps(_control_plane()), json.dumps(_kubelet())],
        "nodes": [{"role": "control-plane", "extraMounts": [audit, policy]}, *workers],
    }


def node_states(places: Places, progress: Progress) -> Mapping[str, str]:
    """Return Docker's state (running, exited, …) of each node of this checkout's cluster."""
    label = f"label=io.x-k8s.kind.cluster={places.cluster}"
    form = "{{.Names}} {{.State}}"
    out = progress.run(["docker", "ps", "--all", "--filter", label, "--format", form])
    return dict(line.split(maxsplit=1) for line in out.splitlines())


def ensure(places: Places, image: str, kind: Path, progress: Progress) -> None:
    """Have this checkout's cluster running, from that node image. Raises StepFailed."""
    wanted = config(places)
    settings = _digest(wanted, places.site_packages)
    seen, nodes = Record.read(places), node_states(places, progress)
    if seen and seen.finished and len(nodes) == seen.nodes:
        if (seen.image, seen.settings) != (image, settings):
            progress.say(
                "the cluster was made with other settings; for the present ones: make clean cluster"
            )
        _start_stopped(nodes, progress)
    else:
        if seen or nodes:
            delete(places, kind, progress)
        made = Record(places.cluster, image, settings, len(wanted["nodes"]), finished=False)
        _create(places, made, wanted, kind, progress)
    _await_nodes(places, progress)


def delete(places: Places, kind: Path, progress: Progress) -> None:
    """Take this checkout's cluster away, finished or not."""
    with progress.step(f"deleting the cluster {places.cluster}"):
        delete_named(places.cluster, kind, progress)
        if node_states(places, progress):  # Docker may have been about to make one more
            delete_named(places.cluster, kind, progress)
        for folder in (places.audit, places.artifacts):
            _remove(folder, progress)
        for file in (places.kubeconfig, places.env_file):
            file.unlink(missing_ok=True)
    record.forget(places)


def delete_named(cluster: str, kind: Path, progress: Progress) -> None:
    """Delete a cluster by its name, without touching anybody's kubeconfig."""
    progress.run([kind, "delete", "cluster", "--name", cluster, "--kubeconfig", "/dev/null"])


def _digest(wanted: Mapping[str, Any], mounted: Path) -> str:
    """Return a digest of the configuration, and of the folder itself that nodes have mounted.

    A folder that was removed and made again is another one, which the nodes do not see.
    """
    told = f"{json.dumps(wanted)} {mounted.stat().st_ino}"
    return hashlib.sha256(told.encode()).hexdigest()[:12]


def _create(
    places: Places, unfinished: Record, wanted: dict[str, Any], kind: Path, progress: Progress
) -> None:
    for folder in (places.artifacts, places.audit):
        folder.mkdir(parents=True, exist_ok=True)
    unfinished.write(places)
    command: Command = [
        kind,
        "create",
        "cluster",
        "--name",
        places.cluster,
        "--image",
        unfinished.image,
    ]
    command += ["--kubeconfig", places.kubeconfig, "--config", "-", "--wait", "120s"]
    try:
        with progress.step(f"creating the cluster {places.cluster} ({places.workers} workers)"):
            progress.run(command, stdin=json.dumps(wanted))
    except BaseException:
        delete(places, kind, progress)
        raise
    replace(unfinished, finished=True).write(places)


def _start_stopped(nodes: Mapping[str, str], progress: Progress) -> None:
    stopped = sorted(name for name, state in nodes.items() if state != "running")
    if stopped:
        with progress.step(f"starting {', '.join(stopped)}"):
            progress.run(["docker", "start", *stopped])


def _await_nodes(places: Places, progress: Progress) -> None:
    kubectl: Command = [
        places.state / "bin" / "kubectl",
        "--kubeconfig",
        places.kubeconfig,
    ]
    wait = [*kubectl, "wait", "--for=condition=Ready", "nodes", "--all", "--timeout=10s"]
    with progress.step("all nodes are ready"):
        for _ in range(11):
            if progress.succeeds(wait, timeout_s=30):
                return
        raise StepFailed(
            f"the nodes are not ready; see: kubectl --kubeconfig {places.kubeconfig} get nodes"
        )


def _remove(folder: Path, progress: Progress) -> None:
    """Remove a folder; the API server, which is root, may have written into it."""
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        pass
    except PermissionError:
        progress.say(f"{folder} belongs to root and stays")


def _control_plane() -> dict[str, Any]:
    def arguments(values: Mapping[str, str]) -> list[dict[str, str]]:
        return [{"name": name, "value": value} for name, value in values.items()]

    def volume(name: str, path: str, writable: bool) -> dict[str, Any]:
        return {"name": name, "hostPath": path, "mountPath": path, "readOnly": not writable}

    return {
        "kind": "ClusterConfiguration",
        "apiServer": {
            "extraArgs": arguments(
                {
                    "audit-log-path": f"{_AUDIT_LOG}/audit.log",
                    "audit-log-maxsize": "500",
                    "audit-policy-file": f"{_AUDIT_POLICY}/policy.yaml",
                }
            ),
            "extraVolumes": [
                volume("audit-log", _AUDIT_LOG, True),
                volume("audit-policy", _AUDIT_POLICY, False),
            ],
        },
        "controllerManager": {
            "extraArgs": arguments(
                {
                    "node-monitor-period": "1s",
                    "node-monitor-grace-period": "6s",
                    "node-eviction-rate": "10",
                    "large-cluster-size-threshold": "0",
                    "unhealthy-zone-threshold": "1",
                }
            )
        },
    }


def _kubelet() -> dict[str, Any]:
    return {
        "kind": "KubeletConfiguration",
        "failCgroupV1": False,
        "nodeStatusUpdateFrequency": "1s",
        "nodeLeaseDurationSeconds": 4,
    }
