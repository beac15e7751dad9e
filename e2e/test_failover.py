"""What answers when workers, nodes and routers die: counted, and bit for bit where not degraded."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from e2e.stage import nodes, routers
from e2e.stage.kube import Body, condition, wait_for
from e2e.stage.siblings import Pods, restarts
from e2e.stage.tiny import Tiny
from examples.tiny.publish import SERVE
from moe_client.figures import Report
from moe_client.recording import Recording
from moe_client.steady import SteadyLoad

MIXTURE_FILE = SERVE / "mixture.yaml"
NOT_DEGRADED = {"Replica", "Stable"}


def rungs(report: Report) -> set[str]:
    """Return the rungs that rows were answered by, those that are not degraded left out."""
    return {rung for rung, _ in report.rungs} - NOT_DEGRADED


def test_a_worker_is_killed_under_load(tiny: Tiny, scripture: Recording) -> None:
    siblings = Pods.of(tiny.kube, "tiny")
    with tiny.load(scripture) as load:
        pod = tiny.pods("tiny-e3")[0]
        nodes.kill_process(pod, "moe_worker")
        wait_for(
            "the kubelet starts it again",
            lambda: any(restarts(p) > restarts(pod) for p in tiny.pods("tiny-e3")),
            60,
        )
        tiny.wait_ready()
        report = load.report()
    assert report.failed == 0, report.failures
    assert report.different == 0 or rungs(report), "other bits although nothing was degraded"
    siblings.assert_untouched(tiny.kube, "tiny", "tiny-e3")


def test_a_node_with_a_router_is_lost_under_load(tiny: Tiny, recording: Recording) -> None:
    """With two replicas of everything no request fails; then all is made whole and spread again."""
    tiny.wait_spread()
    node = tiny.pods(component="router")[0]["spec"]["nodeName"]
    with tiny.load(recording) as load:
        nodes.stop(node)
        gone = load.now()
        wait_for("requests are answered without the node", lambda: served(load, gone, 100), 60)
        wait_for("all that was there is replaced", lambda: replaced(tiny, node), 120)
        nodes.start(node, tiny.kube)
        tiny.wait_ready()
        report = load.report()
    assert report.failed == 0, report.failures
    tiny.wait_spread()


def test_a_router_starts_anew_while_the_control_plane_stands_still(
    tiny: Tiny, scripture: Recording
) -> None:
    """It serves by the table and the workers on its disk; no request fails, and no bit differs."""
    tiny.wait_spread()
    pod = tiny.pods(component="router")[0]
    address = tiny.address_by_node()[pod["spec"]["nodeName"]]

    def kept(expected: bool) -> bool:
        said = routers.seen(address)
        return said is not None and said.epoch > 0 and said.table_kept is expected

    with tiny.load(scripture) as load:
        with nodes.control_plane_halted(tiny.kube):
            nodes.kill_process(pod, "moe_router")
            wait_for("it serves by its copy", lambda: kept(True), 60)
            with SteadyLoad([address], scripture, mixture=tiny.mixture) as own:
                wait_for("it answers", lambda: own.requests >= 50, 30)
                alone = own.report()
        wait_for("it follows the API server again", lambda: kept(False), 60)
        report = load.report()
    assert report.failed == alone.failed == 0, (report.failures, alone.failures)
    assert report.different == alone.different == 0
    assert not rungs(report) | rungs(alone)


def test_a_node_with_the_only_replica_is_lost_under_load(tiny: Tiny, scripture: Recording) -> None:
    """The backup answers until the replica is made again elsewhere; nothing fails."""
    tiny.wait_spread()
    tiny.kube.run("scale", "expert", "tiny-e3", "--replicas=1")
    wait_for("one pod is left", lambda: len(tiny.pods("tiny-e3")) == 1, 60)
    node = tiny.pods("tiny-e3")[0]["spec"]["nodeName"]
    with tiny.load(scripture) as load:
        nodes.stop(node)
        gone = load.now()
        wait_for("the backup answers", lambda: ("Backup", "e3") in load.report(gone).rungs, 30)
        wait_for("it is made again elsewhere", lambda: ready_elsewhere(tiny, node), 120)
        report = load.report()
        nodes.start(node, tiny.kube)
    assert report.failed == 0, report.failures
    assert report.degraded_requests > 0


def ready_elsewhere(tiny: Tiny, lost: str) -> bool:
    """True when a pod of e3 is ready that is not on a lost node."""
    return any(
        pod["spec"].get("nodeName") != lost and condition(pod, "Ready").get("status") == "True"
        for pod in tiny.pods("tiny-e3")
    )


def replaced(tiny: Tiny, lost: str) -> bool:
    """True when every expert and the routers have two pods that are ready, none on a lost node."""
    ready: Counter[str] = Counter()
    for pod in (*tiny.pods(), *tiny.pods(component="router")):
        if pod["spec"].get("nodeName") != lost and condition(pod, "Ready").get("status") == "True":
            ready[pod["metadata"]["labels"].get("moeops.dev/expert", "routers")] += 1
    return len(ready) == 10 and min(ready.values()) >= 2


def served(load: SteadyLoad, since_s: float, requests: int) -> bool:
    """True when that many requests that began since were answered."""
    report = load.report(since_s)
    return report.requests - report.failed >= requests


@contextmanager
def without(tiny: Tiny, *experts: str) -> Iterator[None]:
    """Take all pods of these Expert objects away, as the loss of their only nodes would."""
    for expert in experts:
        tiny.kube.run("scale", "expert", expert, "--replicas=0")
    wait_for(
        f"no pod of {', '.join(experts)} is left",
        lambda: not any(tiny.pods(expert) for expert in experts),
        90,
    )
    yield


LADDER = (
    pytest.param(("tiny-e3",), "Backup", id="the backup answers"),
    pytest.param(("tiny-e3", "tiny-e2"), "Dense", id="then the dense expert"),
    pytest.param(("tiny-e3", "tiny-e2", "tiny-dense"), "Renormalise", id="then the other choices"),
)


@pytest.mark.parametrize(("lost", "rung"), LADDER)
def test_the_ladder(tiny: Tiny, scripture: Recording, lost: tuple[str, ...], rung: str) -> None:
    with tiny.load(scripture) as load, without(tiny, *lost):
        since = load.now()
        wait_for("rows are answered", lambda: served(load, since, 50), 60)
        report = load.report()
        after = load.report(since)
    assert report.failed == 0, report.failures
    assert (rung, "e3") in after.rungs, after.rungs
    assert after.degraded_requests > 0


def test_nobody_left_is_the_residual_and_past_the_bound_unavailable(
    tiny: Tiny, scripture: Recording
) -> None:
    everything = [e["metadata"]["name"] for e in tiny.kube.list("experts")]
    with tiny.load(scripture) as load, without(tiny, *everything):
        since = load.now()
        wait_for("rows are answered", lambda: served(load, since, 50), 60)
        report = load.report()
        assert report.failed == 0, report.failures
        assert "Residual" in rungs(load.report(since))
        bound(tiny, 5)
        since = load.now()
        wait_for("requests are refused", lambda: load.report(since).failed > 0, 30)
        bound(tiny, 100)
        failures = load.report(since).failures
    assert all("UNAVAILABLE" in why and "%" in why for why in failures), failures
    assert any("e3" in why for why in failures), failures


def bound(tiny: Tiny, percent: int) -> None:
    """Set how much may be degraded, and wait until routers serve a table that says so."""
    change: Body = {"spec": {"failover": {"maxDegradedPercent": percent}}}
    tiny.kube.patch("mixture", "tiny", change)

    def in_force() -> bool:
        return bool(tiny.kube.table("tiny")["failover"]["maxDegradedPercent"] == percent)

    wait_for("the table has it", in_force, 30)
    time.sleep(1)  # no status tells an outsider which epoch each router serves
