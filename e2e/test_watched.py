"""What people would have seen of all scenarios: every panel had data, and every alert fired.

It comes last, and only where the whole suite runs: the suite is what Prometheus looks at. Here is
done only what lasts longer than any scenario needs.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from xml.etree import ElementTree

import numpy as np
import yaml

from dashboards.pictures import __main__ as pictures
from dashboards.places import FOLDER
from e2e.stage import nodes
from e2e.stage.kube import Body, wait_for
from e2e.stage.reading import reading
from e2e.stage.release import ROOT
from e2e.stage.requests import four_times
from e2e.stage.tiny import Models, Tiny
from e2e.stage.watching import Watch
from e2e.test_gates import gate, outcome, weights
from e2e.test_serving import assert_routed
from examples.tiny.publish import ROLLOUTS
from moe_client.recording import Recording
from tests.dashboards.files import alerts, asked

SVG = "{http://www.w3.org/2000/svg}"
TRIED = {
    "steps": [{"weightPercent": 50, "pauseSeconds": 600}, {"weightPercent": 100}],
    "minRequests": 0,
    "shadowPercent": 100,
    "scaleDownDelaySeconds": 1,
}
# It would stay in the shadow for ever: no objection, and never enough rows.
IN_THE_SHADOW = TRIED | {
    "analysis": {"minShadowRows": 1_000_000, "maxLoadShiftPercent": 100, "minEntropyPercent": 0},
}


def copies() -> Body:
    """Return a version of e3 that is asked about copies of rows, too, and stays at one half."""
    body: Body = yaml.safe_load((ROLLOUTS / "e3-v2-better.yaml").read_text())
    body["spec"]["rollout"] = TRIED
    return body


def flat() -> Body:
    """Return a gate whose choice is the same two experts for every token."""
    body = gate("v2-flat", {layer: np.zeros_like(weight) for layer, weight in weights().items()})
    body["spec"]["rollout"] = IN_THE_SHADOW
    return body


def empty(watch: Watch) -> set[tuple[str, str]]:
    """Return the panels that had no data, of all boards."""
    return {(each.board, each.panel) for each in asked() if not watch.answered(each)}


@contextmanager
def straggling(pod: Body) -> Iterator[None]:
    """Have a worker stand still for four fifths of the time, too briefly to count as silent."""
    over = threading.Event()

    def stumble() -> None:
        while not over.is_set():
            nodes.stumble(pod, "moe_worker", seconds=5)

    thread = threading.Thread(target=stumble)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_a_version_of_an_expert_and_a_gate_in_the_shadow_are_shown(
    tiny: Tiny, models: Models, scripture: Recording, watch: Watch
) -> None:
    """The gate is promoted then, by hand, and everything goes to two experts."""
    with tiny.load(scripture):
        tiny.kube.apply(copies())
        wait_for("copies", lambda: watch.shown("expert", "Shadow errors"), 60, interval_s=1)
        tiny.kube.moe("abort", "tiny-e3")
    with reading(tiny, models) as readers:
        tiny.kube.apply(flat())
        panel = "Divergence in the shadow, highest layers"
        wait_for("a gate's shadow", lambda: watch.shown("routing", panel), 90, interval_s=1)
        tiny.kube.moe("promote", "gate/tiny-gate")
        wait_for("it serves", lambda: outcome(tiny) == ("v2-flat", "Promoted"), 60)
        wait_for("it is told", lambda: "MoeRoutingCollapse" in watch.fired(), 180, interval_s=1)
    assert readers.failures == []


def test_what_routers_choose_is_shown(tiny: Tiny, scripture: Recording, watch: Watch) -> None:
    """Elsewhere clients apply the gate, and routers know only what was chosen."""

    def shown() -> bool:
        assert_routed(tiny, scripture)
        return watch.shown("routing", "Entropy of a gate's choice")

    wait_for("what routers choose", shown, 60)


def test_a_straggler_is_told(tiny: Tiny, scripture: Recording, watch: Watch) -> None:
    with tiny.load(scripture), straggling(tiny.pods("tiny-e3")[0]):
        wait_for("it is told", lambda: "MoeWorkerStraggling" in watch.fired(), 180, interval_s=1)


def test_answers_of_another_size_are_told(tiny: Tiny, scripture: Recording, watch: Watch) -> None:
    """Versions are those of a minute ago; the rows that they get are four times as long."""
    with tiny.load(four_times(scripture)):
        wait_for("it is told", lambda: "MoeExpertNormShifted" in watch.fired(), 180, interval_s=1)


def test_all_programs_were_scraped(watch: Watch) -> None:
    assert watch.jobs() == {"operator", "router", "worker"}


def test_every_panel_had_data(watch: Watch) -> None:
    assert empty(watch) == set()


def test_each_dashboard_is_drawn(watch: Watch) -> None:
    """Of all that happened; the pictures stay in `.moe/dashboards` for people to look at."""
    folder = ROOT / ".moe" / "dashboards"
    minutes = math.ceil((time.monotonic() - watch.began) / 60)
    said = ["--prometheus", watch.server.url, "--out", str(folder), "--minutes", str(minutes)]
    assert pictures.main([*said, "--set", "expert=e3", "--set", "mixture=tiny"]) == 0
    names = {path.stem for path in FOLDER.glob("*.json")}
    assert {path.stem for path in folder.glob("*.svg")} == names
    drawn = {name: ElementTree.parse(folder / f"{name}.svg").getroot() for name in names}
    lines = {name: sum(1 for _ in root.iter(f"{SVG}path")) for name, root in drawn.items()}
    assert all(lines.values()), lines


def test_every_alert_fired(watch: Watch) -> None:
    assert watch.fired() == {rule["alert"] for rule in alerts()}
