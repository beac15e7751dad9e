"""A real Prometheus scrapes the real programs through all that happens to a mixture.

Every query of every dashboard has an answer at some moment of it: a canary of an expert that is
paused, experts whose pods are lost, a worker that is killed, and a canary of a gate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import yaml

from e2e.stage import nodes
from e2e.stage.kube import Body, wait_for
from e2e.stage.reading import reading
from e2e.stage.scraping import prometheus
from e2e.stage.tiny import Models, Tiny
from e2e.test_gates import TRIED, gate, weights
from examples.tiny.publish import ROLLOUTS
from moe_client.recording import Recording
from tests.dashboards.files import Asked, asked
from tests.prometheus.server import PrometheusServer

# What may have no answer even here, and why.
MAY_BE_EMPTY: Mapping[tuple[str, str], str] = {
    ("mixtures", "Duration, median"): (
        "a histogram that is born with its first rollout has risen by nothing yet; it takes a "
        "second end of the same outcome within the minute that is looked at"
    ),
    ("operator", "Ends of rollouts"): "a rate wants two scrapes after the first end",
    ("routing", "Entropy of a gate's choice"): "clients apply the gate here, not routers",
}
CANARY = {
    "steps": [{"weightPercent": 50, "pauseSeconds": 600}, {"weightPercent": 100}],
    "minRequests": 20,
    "shadowPercent": 50,
    "scaleDownDelaySeconds": 1,
}


@dataclass(slots=True)
class Watch:
    """Asks each query until it was answered once."""

    server: PrometheusServer
    expert: str = "e3"
    open: list[Asked] = field(default_factory=asked)

    def look(self) -> list[Asked]:
        """Ask what is still open; return what is afterwards."""
        self.open = [each for each in self.open if not self._answered(each)]
        return self.open

    def until_none_is_open_but(self, allowed: Callable[[Asked], bool], timeout_s: float) -> None:
        wait_for(
            f"data for {sorted({(e.board, e.panel) for e in self.open if not allowed(e)})}",
            lambda: all(allowed(each) for each in self.look()),
            timeout_s,
            interval_s=1,
        )

    def _answered(self, each: Asked) -> bool:
        values = {"expert": self.expert} if each.board == "expert" else {}
        found = self.server.ask(each.with_values(values))
        return any(not math.isnan(value) for _, value in found)


def canary() -> Body:
    """Return a new version of e3 that stays on half of the sessions."""
    body: Body = yaml.safe_load((ROLLOUTS / "e3-v2-better.yaml").read_text())
    body["spec"]["rollout"] = CANARY
    return body


def weight(tiny: Tiny) -> str:
    """Return the candidate's share as the status of e3 says it; a rollout may not have begun."""
    return str(tiny.expert().get("status", {}).get("weight", ""))


def may_be_empty(each: Asked) -> bool:
    return (each.board, each.panel) in MAY_BE_EMPTY


def of_gates(each: Asked) -> bool:
    return each.board == "routing" or may_be_empty(each)


def looked(watch: Watch, reached: Callable[[], object]) -> Callable[[], object]:
    """Return a condition that has the open queries asked each time that it is looked at."""

    def look() -> object:
        watch.look()
        return reached()

    return look


@pytest.mark.timeout(1200)
def test_every_panel_has_data(
    tiny: Tiny, models: Models, recording: Recording, tmp_path: Path
) -> None:
    with prometheus(tmp_path) as server:
        watch = Watch(server)
        with tiny.load(recording):
            tiny.kube.apply(canary())
            wait_for("half of the sessions", looked(watch, lambda: weight(tiny) == "50%"), 120)
            tiny.kube.moe("pause", "tiny-e3")
            nodes.kill_process(tiny.pods("tiny-e1")[0], "moe_worker")
            tiny.kube.run("scale", "expert", "tiny-e2", "--replicas=0")
            watch.until_none_is_open_but(of_gates, 240)
            tiny.kube.run("scale", "expert", "tiny-e2", "--replicas=2")
            tiny.kube.moe("resume", "tiny-e3")
            tiny.kube.moe("promote", "tiny-e3")
            tiny.wait_outcome("v2-better", "Promoted")
            tiny.wait_ready()
        sharper = {layer: w * np.asarray(1.125, w.dtype) for layer, w in weights().items()}
        body = gate("v2-watched", sharper)
        body["spec"]["rollout"] = TRIED | {"steps": [{"weightPercent": 50, "pauseSeconds": 600}]}
        with reading(tiny, models) as readers:
            tiny.kube.apply(body)
            watch.until_none_is_open_but(may_be_empty, 240)
        assert readers.failures == []


def test_what_may_be_empty_is_asked_somewhere() -> None:
    assert MAY_BE_EMPTY.keys() <= {(each.board, each.panel) for each in asked()}
