"""The operator as a process: how it starts, says that it lives, ends, and hands over."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from moe_operator.cluster import NotFound
from moe_operator.kinds import DEPLOYMENT, EXPERT, ROUTING_TABLE, Body
from tests.kube.server import KubeServer
from tests.operator.engine.bodies import expert, gate, mixture, sha
from tests.operator.engine.scene import Clients
from tests.operator.kube.scene import asking
from tests.operator.kube.speakers import speaking
from tests.operator.kube.stage import ACCOUNT, SYSTEM, Stage
from tests.support.scrape import scrape

IMAGES = ("--worker-image", "worker", "--router-image", "router")
COMMAND = (sys.executable, "-m", "moe_operator")
PORTLESS = ("--health-port", "0", "--metrics-port", "0")


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
    first, second = tmp_path / "first.log", tmp_path / "second.log"
    port, metrics = free_port(), free_port()
    ports = "--health-port", str(port), "--metrics-port", str(metrics)
    with running(installed, namespace, first, *ports) as leader:
        wait_for_line(first, "leading identity=first")
        seen = scrape(f"127.0.0.1:{metrics}")
        assert seen.value("leader_election_master_status", name="moeops-operator") == 1
        assert seen.value("controller_runtime_reconcile_errors_total", controller="mixture") == 0
        for path in ("healthz", "readyz"):
            url = f"http://127.0.0.1:{port}/{path}"
            with urllib.request.urlopen(url, timeout=5) as answer:
                assert answer.read() == b"ok"
        with running(installed, namespace, second, *PORTLESS) as follower:
            wait_for_line(second, "waiting_for_lease holder=first")
            assert lease(installed) == "first"
            leader.send_signal(signal.SIGTERM)
            assert leader.wait(20) == 0
            assert "event=stopped signal=SIGTERM" in first.read_text()
            wait_for_line(second, "leading identity=second")
            assert lease(installed) == "second"
            follower.send_signal(signal.SIGINT)
            assert follower.wait(20) == 0
    assert lease(installed) == ""


def row(table: Body) -> dict[str, Any]:
    found: dict[str, Any] = table["spec"]["experts"][0]
    return found


def stable_of(table: Body) -> str:
    return str((row(table).get("stable") or {}).get("version"))


async def test_a_leader_that_slept_changes_nothing(
    installed: KubeServer, stage: Stage, tmp_path: Path
) -> None:
    first, second = tmp_path / "first.log", tmp_path / "second.log"
    stage.nodes.subnet = f"127.{os.getpid() % 250 + 1}"
    flags, clients = (installed, stage.namespace), Clients(stage.nodes)
    with ExitStack() as stack:
        leader = stack.enter_context(running(*flags, first, *PORTLESS))
        await asyncio.to_thread(wait_for_line, first, "leading identity=first")
        stack.enter_context(running(*flags, second, *PORTLESS))
        await asyncio.to_thread(wait_for_line, second, "waiting_for_lease holder=first")
        async with speaking(stage.nodes), asking(clients), epochs(stage) as seen:
            await in_the_middle_of_a_canary(stage)
            await stage.patch(EXPERT, "tiny-e0", {"spec": {"replicas": 2}})
            leader.send_signal(signal.SIGSTOP)
            await asyncio.to_thread(wait_for_line, second, "leading identity=second")
            clients.ask = True
            await stage.until(ROUTING_TABLE, "tiny", lambda t: stable_of(t) == "v2")
            await stage.gone(DEPLOYMENT, f"tiny-e0-{sha('a')[:10]}")
            place = await stage.quiet(3)
            leader.send_signal(signal.SIGCONT)
            await asyncio.to_thread(wait_for_line, first, "leads_no_longer")
            await stage.quiet(3)
            assert stage.writes(place) == []
            assert seen == sorted(seen)
        assert lease(installed) == "second"


async def in_the_middle_of_a_canary(stage: Stage) -> None:
    quick = {"steps": [{"weightPercent": 50, "pauseSeconds": 0}], "minRequests": 5}
    rollout = {**quick, "scaleDownDelaySeconds": 1}
    await stage.apply(mixture(), expert("e0", rollout=rollout), gate("e0"))
    await stage.until(ROUTING_TABLE, "tiny", lambda t: stable_of(t) == "v1")
    await stage.apply(expert("e0", sha("b"), "v2", rollout=rollout))
    await stage.until(
        ROUTING_TABLE, "tiny", lambda t: "candidate" in row(t) and row(t)["rollout"]["weights"]
    )


@asynccontextmanager
async def epochs(stage: Stage) -> AsyncIterator[list[int]]:
    """Note the table's epoch again and again."""
    seen: list[int] = []

    async def look() -> None:
        while True:
            with suppress(NotFound):
                seen.append((await stage.get(ROUTING_TABLE, "tiny"))["spec"]["epoch"])
            await asyncio.sleep(0.05)

    looking = asyncio.create_task(look())
    try:
        yield seen
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)


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
