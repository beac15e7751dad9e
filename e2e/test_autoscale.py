"""Replicas of an expert follow a load step and come down again; no request fails meanwhile.

What a worker may use is in its pod template, which is frozen with its revision: so a version of e3
of its own is served by workers that may use a tenth of a processor each, where more of them help
also on two processors; all others go on as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from e2e.stage.kube import Body, wait_for
from e2e.stage.restore import AT_ONCE
from e2e.stage.tiny import Tiny
from examples.tiny.publish import ROLLOUTS, SERVE
from moe_client.figures import Report
from moe_client.recording import Recording
from moe_client.steady import SteadyLoad

VERSION = "v2-better"
SCALING: dict[str, Any] = {
    "minReplicas": 1,
    "maxReplicas": 4,
    "targetUtilizationPercent": 8,  # little: two processors bear the load, its answers and all else
    "stabilizationWindowSeconds": {"up": 0, "down": 30},
    "panicWindowSeconds": 10,
}
# A worker with a tenth of a processor takes its time to start.
STARTS_S = 400.0


def manifest(path: Path) -> Body:
    body: Body = yaml.safe_load(path.read_text())
    return body


def serve_slowly(tiny: Tiny) -> None:
    """Serve e3 by workers that may use a tenth of a processor each, as many as its load asks."""
    mixture, expert = manifest(SERVE / "mixture.yaml"), manifest(ROLLOUTS / f"e3-{VERSION}.yaml")
    mixture["spec"]["workers"]["resources"]["limits"]["cpu"] = "100m"
    del mixture["spec"]["evaluation"]
    expert["spec"] |= {"autoscaling": SCALING, "rollout": AT_ONCE}
    tiny.kube.apply(mixture, expert)
    tiny.wait_outcome(VERSION, "Promoted", timeout_s=STARTS_S)


def replicas(tiny: Tiny) -> int:
    """Return how many ready pods e3 has, where none is coming or going; else 0."""
    pods = tiny.pods("tiny-e3")
    status = tiny.expert()["status"]
    ready, wanted = map(int, status["ready"].split("/"))
    return ready if ready == wanted == len(pods) else 0


def goodput(report: Report) -> float:
    return (report.requests - report.failed) / report.seconds


def test_replicas_follow_a_load_and_come_down_again(tiny: Tiny, scripture: Recording) -> None:
    serve_slowly(tiny)
    wait_for("an idle expert has one pod", lambda: replicas(tiny) == 1, 180, interval_s=1)

    with tiny.load(scripture, sessions=6, rows=16) as load:
        began = load.now()
        wait_for("the load is followed", lambda: replicas(tiny) > 1, STARTS_S, interval_s=1)
        followed, answered = load.now(), load.requests
        wait_for("more is answered", lambda: load.requests >= answered + 200, 120)
        before, after = load.report(began, followed), load.report(followed)
        said = tiny.expert()["status"]["autoscaling"]["message"]
    print(
        f"{goodput(before):.1f} requests/s with one worker, {goodput(after):.1f} from "
        f"{followed - began:.0f} s on, with {replicas(tiny)}: {said}"
    )
    assert before.failed == after.failed == 0, (before.failures, after.failures)

    with tiny.load(scripture, sessions=1, rows=1, requests_per_s=2) as light:
        wait_for("one pod is left", lambda: replicas(tiny) == 1, 240, interval_s=1)
        report = light.report()
    print(f"down to one worker {report.seconds:.0f} s after the load")
    assert report.failed == 0, report.failures
    assert tiny.expert()["spec"]["replicas"] == 2, "the spec is as it was written"


def test_kubectl_moe_says_why_there_are_so_many(tiny: Tiny) -> None:
    scaling = {**SCALING, "minReplicas": 3}
    tiny.kube.patch("expert", "tiny-e3", {"spec": {"autoscaling": scaling}})
    try:
        wait_for("three pods serve", lambda: replicas(tiny) == 3, 240, interval_s=1)
        said = tiny.kube.moe("status", "ex/tiny-e3")
        assert said.returncode == 0, said.stderr
        assert "wants 3" in said.stdout
    finally:
        tiny.kube.patch("expert", "tiny-e3", {"spec": {"autoscaling": None}})


@contextmanager
def sleeping(tiny: Tiny, **settings: str) -> Iterator[None]:
    """Have e3 sleep when the block begins, and be as it was afterwards."""
    windows = {"stabilizationWindowSeconds": {"up": 0, "down": 5}, "panicWindowSeconds": 5}
    cold = {"minReplicas": 0, "maxReplicas": 2, "targetUtilizationPercent": 80, **windows}
    tiny.kube.patch("expert", "tiny-e3", {"spec": {"autoscaling": {**cold, **settings}}})
    try:
        wait_for("it has no pods", lambda: not tiny.pods("tiny-e3"), 60)
        assert tiny.expert()["status"]["phase"] == "Asleep"
        yield
    finally:
        tiny.kube.patch("expert", "tiny-e3", {"spec": {"autoscaling": None}})


def test_a_cold_expert_sleeps_and_the_next_rows_wake_it(tiny: Tiny, scripture: Recording) -> None:
    """Until it serves its backup answers, and no request fails."""
    with sleeping(tiny), tiny.load(scripture) as load:
        wait_for("its rows wake it", lambda: replicas(tiny) >= 1, 60)
        report = load.report()
    assert report.failed == 0, report.failures
    assert ("Backup", "e3") in report.rungs


def test_rows_wait_for_an_expert_that_is_to_be_waited_for(tiny: Tiny, scripture: Recording) -> None:
    """They get its own answer, bit for bit, when it is awake; no stand-in answers."""
    load = SteadyLoad(
        tiny.addresses(), scripture, mixture=tiny.mixture, sessions=2, rows=8, timeout_s=90
    )
    with sleeping(tiny, onCold="Wait"), load:
        wait_for("its rows wake it, and are answered", lambda: load.requests >= 50, 90)
        report = load.report()
    assert report.failed == 0, report.failures
    assert report.degraded_requests == report.different == 0
    assert not any(expert == "e3" for _, expert in report.rungs), report.rungs
