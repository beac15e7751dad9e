"""Takes away nodes and processes of the local cluster, verifies that they went, brings them back.

Only nodes that are containers on this machine (kind) can be treated so.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from e2e.stage.kube import Body, Kube, KubectlError, condition, wait_for


def docker(*arguments: str) -> str:
    """Return what docker printed. Raises RuntimeError with what it complained about."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"docker {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout.strip()


def address(node: Body) -> str:
    """Return the address of a node inside the cluster's network."""
    addresses = node["status"]["addresses"]
    return str(next(a["address"] for a in addresses if a["type"] == "InternalIP"))


def workers(kube: Kube) -> list[Body]:
    """Return the nodes that run pods, those of the control plane left out."""
    return [node for node in kube.list("nodes") if not _controls(node)]


def control_plane(kube: Kube) -> list[Body]:
    """Return the nodes of the control plane."""
    return [node for node in kube.list("nodes") if _controls(node)]


def _controls(node: Body) -> bool:
    return "node-role.kubernetes.io/control-plane" in node["metadata"]["labels"]


def stop(name: str) -> None:
    """Switch a node off as a power cut would; returns when it is off."""
    docker("stop", "-t", "0", name)
    running = json.loads(docker("inspect", name))[0]["State"]["Running"]
    if running:
        raise RuntimeError(f"node {name} still runs")


def start(name: str, kube: Kube, timeout_s: float = 120) -> None:
    """Switch a node on again and wait until Kubernetes counts it as ready."""
    docker("start", name)

    def ready() -> bool:
        node = kube.get("node", name)
        return node is not None and condition(node, "Ready").get("status") == "True"

    wait_for(f"node {name} is ready again", ready, timeout_s, interval_s=0.5)


@contextmanager
def control_plane_halted(kube: Kube) -> Iterator[None]:
    """Have the control plane stand still in the block: nobody answers there, and nobody decides.

    Afterwards it is waited for until it answers.
    """
    halted = [node["metadata"]["name"] for node in control_plane(kube)]
    for name in halted:
        docker("pause", name)
    try:
        yield
    finally:
        for name in halted:
            docker("unpause", name)
    wait_for("the API server answers", lambda: _answers(kube), 60)


def _answers(kube: Kube) -> bool:
    try:
        kube.run("get", "--raw", "/readyz", timeout_s=5)
    except (KubectlError, subprocess.TimeoutExpired):
        return False
    return True


def kill_process(pod: Body, program: str) -> int:
    """Send SIGKILL to a pod's program, from its node. Returns the process id that it had there.

    Raises RuntimeError where there is no such process, or it is still there afterwards.
    """
    killed = signal_process(pod, program, "KILL")
    gone = f"test ! -e /proc/{killed}/exe || echo there"
    if docker("exec", pod["spec"]["nodeName"], "sh", "-c", gone):
        raise RuntimeError(f"process {killed} of {program} survived SIGKILL")
    return killed


def halt_process(pod: Body, program: str) -> int:
    """Send SIGSTOP to a pod's program; it does nothing more until `continue_process`.

    Returns its process id on its node. Raises RuntimeError where it does not stand still.
    """
    halted = signal_process(pod, program, "STOP")
    state = docker("exec", pod["spec"]["nodeName"], "cat", f"/proc/{halted}/stat")
    if state.rpartition(")")[2].split()[0] != "T":
        raise RuntimeError(f"process {halted} of {program} goes on after SIGSTOP")
    return halted


def continue_process(pod: Body, program: str) -> None:
    """Let a program that was halted go on."""
    signal_process(pod, program, "CONT")


def stumble(pod: Body, program: str, seconds: int) -> None:
    """Halt and continue a pod's program again and again; at the end it goes on.

    It stands still for 80 ms and goes on for 20 ms, each time.
    """
    process = signal_process(pod, program, "CONT")
    once = f"kill -STOP {process}; sleep 0.08; kill -CONT {process}; sleep 0.02"
    script = f"for i in $(seq {seconds * 10}); do {once}; done"
    docker("exec", pod["spec"]["nodeName"], "sh", "-c", script)


def signal_process(pod: Body, program: str, name: str) -> int:
    """Send a signal to a pod's program, from its node. Returns the process id that it has there.

    Raises RuntimeError where there is no such process.
    """
    node, uid = pod["spec"]["nodeName"], pod["metadata"]["uid"]
    script = (
        "for p in /proc/[0-9]*; do"
        f' if grep -q -e {uid} -e {uid.replace("-", "_")} "$p/cgroup" 2>/dev/null'
        f' && tr "\\0" " " < "$p/cmdline" 2>/dev/null | grep -q -e "-m {program}";'
        f' then echo "${{p#/proc/}}"; kill -{name} "${{p#/proc/}}"; fi; done'
    )
    found = docker("exec", node, "sh", "-c", script).split()
    if not found:
        raise RuntimeError(f"pod {pod['metadata']['name']} has no process of {program}")
    return int(found[0])
