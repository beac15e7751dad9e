"""A program that has a router in its own process is one of the mixture's routers, to everybody."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import yaml

from e2e.conftest import ROOT
from e2e.stage.kube import Body, condition, wait_for
from e2e.stage.tiny import Tiny

MANIFEST = ROOT / "examples" / "tiny" / "embedded.yaml"
SELECTOR = "app=tiny-embedded"


@pytest.fixture
def program(tiny: Tiny) -> Iterator[Body]:
    """Its pod, which is ready."""
    body = yaml.safe_load(MANIFEST.read_text())
    (container,) = body["spec"]["template"]["spec"]["containers"]
    container["image"] = tiny.pods(component="router")[0]["spec"]["containers"][0]["image"]
    tiny.kube.apply(body)
    try:
        yield wait_for("the program is ready", lambda: _ready(tiny), 60, interval_s=0.5)
    finally:
        tiny.kube.delete("deployment", "tiny-embedded")
        wait_for("its pod is gone", lambda: not tiny.kube.list("pods", SELECTOR), 60)


def _ready(tiny: Tiny) -> Body | None:
    pods = tiny.kube.list("pods", SELECTOR)
    return next((pod for pod in pods if condition(pod, "Ready").get("status") == "True"), None)


def _last(tiny: Tiny, pod: str) -> tuple[int, int]:
    """Return how many requests were answered, and by which epoch the last one."""
    found = re.findall(r"^answered=(\d+) epoch=(\d+)", tiny.kube.run("logs", pod), re.MULTILINE)
    return (int(found[-1][0]), int(found[-1][1])) if found else (0, 0)


def test_a_rollout_is_judged_by_what_such_a_router_sees(tiny: Tiny, program: Body) -> None:
    """Nobody else asks anything: its rows are all the evidence, and it takes every table."""
    tiny.roll_out("v2-better")
    tiny.wait_outcome("v2-better", "Promoted")
    done = tiny.kube.moe("rollback", "tiny-e3", "--reason", "as a test", "--wait")
    assert done.returncode == 0, done.stderr
    name, epoch = program["metadata"]["name"], tiny.kube.table("tiny")["epoch"]
    wait_for("it serves by the last table", lambda: _last(tiny, name)[1] >= epoch, 30)
    (pod,) = (p for p in tiny.kube.list("pods", SELECTOR) if p["metadata"]["name"] == name)
    assert [status["restartCount"] for status in pod["status"]["containerStatuses"]] == [0]
