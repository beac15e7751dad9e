"""The operator as a process: how it starts, says that it lives, ends, and hands over."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.kube.server import KubeServer
from tests.operator.kube.stage import ACCOUNT, SYSTEM

IMAGES = ("--worker-image", "worker", "--router-image", "router")
COMMAND = (sys.executable, "-m", "moe_operator")


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def wait_for_line(log: Path, text: str, within_s: float = 30) -> None:
    until = time.monotonic() + within_s
    while text not in log.read_text():
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.05)


@contextmanager
def running(
    server: KubeServer, namespace: str, log: Path, *flags: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Run an operator of one namespace with the rights of its service account."""
    config = str(server.kubeconfig(SYSTEM, ACCOUNT))
    environ = {**os.environ, "POD_NAME": log.stem, "POD_NAMESPACE": SYSTEM}
    command = [*COMMAND, *IMAGES, "--kubeconfig", config, "--namespace", namespace, *flags]
    with log.open("wb") as file, ExitStack() as stack:
        process = subprocess.Popen(command, stderr=file, env=environ)
        stack.callback(process.wait)
        stack.callback(process.kill)
        yield process


def lease(server: KubeServer) -> str:
    path = f"/apis/coordination.k8s.io/v1/namespaces/{SYSTEM}/leases/moeops-operator"
    holder = server.request("GET", path)["spec"].get("holderIdentity")
    return str(holder or "")


def test_one_leads_and_the_next_follows_when_it_ends(
    installed: KubeServer, namespace: str, tmp_path: Path
) -> None:
    first, second, port = tmp_path / "first.log", tmp_path / "second.log", free_port()
    with running(installed, namespace, first, "--health-port", str(port)) as leader:
        wait_for_line(first, "leading identity=first")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5) as answer:
            assert answer.read() == b"ok"
        with running(installed, namespace, second, "--health-port", "0") as follower:
            wait_for_line(second, "waiting for the lease holder=first")
            assert lease(installed) == "first"
            leader.send_signal(signal.SIGTERM)
            assert leader.wait(20) == 0
            assert "stopped: SIGTERM" in first.read_text()
            wait_for_line(second, "leading identity=second")
            assert lease(installed) == "second"
            follower.send_signal(signal.SIGINT)
            assert follower.wait(20) == 0
    assert lease(installed) == ""


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        pytest.param(None, "No such file", id="missing"),
        pytest.param("{", "cannot be used", id="not YAML"),
        pytest.param("{}", "cannot be used", id="empty"),
    ],
)
def test_a_kubeconfig_that_cannot_be_used_is_told(
    content: str | None, sentence: str, tmp_path: Path
) -> None:
    config = tmp_path / "kubeconfig"
    if content is not None:
        config.write_text(content)
    done = subprocess.run(
        [*COMMAND, *IMAGES, "--kubeconfig", str(config)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("moe_operator: the kubeconfig cannot be used: ")
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
