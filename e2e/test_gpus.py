"""Pods that need a device of which there are few: waited for without weight, and named.

The devices are counted by the scheduler as GPUs are, and are not there: no program asks for one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from e2e.stage import nodes
from e2e.stage.kube import Body, Kube, condition, wait_for
from e2e.stage.restore import AT_ONCE
from e2e.stage.tiny import Tiny
from examples.tiny.publish import ROLLOUTS, SERVE

GPU = "example.com/gpu"
VERSION = "v2-better"
THREE = {"minReplicas": 3, "maxReplicas": 4, "targetUtilizationPercent": 80}


def manifest(path: Path) -> Body:
    body: Body = yaml.safe_load(path.read_text())
    return body


def give(kube: Kube, node: str, count: str | None) -> None:
    """Let a node have so many; None takes them away."""
    amount = {GPU: count}
    status = {"status": {"capacity": amount, "allocatable": amount}}
    kube.run(
        "patch", "node", node, "--subresource=status", "--type=merge", "-p", json.dumps(status)
    )


@contextmanager
def taken_back(kube: Kube, *names: str) -> Iterator[None]:
    try:
        yield
    finally:
        for name in names:
            give(kube, name, None)


def serve_on_gpus(tiny: Tiny, **spec: Any) -> None:
    """Serve another version of e3, each of whose pods needs one."""
    mixture, expert = manifest(SERVE / "mixture.yaml"), manifest(ROLLOUTS / f"e3-{VERSION}.yaml")
    mixture["spec"]["workers"]["resources"]["limits"][GPU] = 1
    del mixture["spec"]["evaluation"]
    expert["spec"] |= {"rollout": AT_ONCE, **spec}
    tiny.kube.apply(mixture, expert)


def test_no_weight_moves_while_none_is_free_and_no_more_are_asked_for(tiny: Tiny) -> None:
    first, second = (node["metadata"]["name"] for node in nodes.workers(tiny.kube)[:2])
    with taken_back(tiny.kube, first, second):
        give(tiny.kube, first, "1")
        serve_on_gpus(tiny)

        def waits() -> bool:
            said = condition(tiny.expert(), "Progressing")
            return said.get("reason") == "Unschedulable" and GPU in said["message"]

        wait_for("it is said that none is free", waits, 60)
        row = tiny.kube.table_row("tiny", "tiny-e3")
        assert (row["stable"]["version"], row.get("candidate")) == ("v1", None)

        give(tiny.kube, second, "1")
        tiny.wait_outcome(VERSION, "Promoted", timeout_s=120)
        serve_on_gpus(tiny, autoscaling=THREE)

        def full() -> bool:
            return GPU in tiny.expert()["status"].get("autoscaling", {}).get("full", "")

        wait_for("it is said that there are no more", full, 60)
