"""A node is drained while requests go on: what is the only one is started elsewhere first."""

from __future__ import annotations

from e2e.stage.kube import condition, wait_for
from e2e.stage.tiny import Tiny
from moe_client.recording import Recording


def test_a_node_with_the_only_replica_is_drained_under_load(
    tiny: Tiny, scripture: Recording
) -> None:
    kube = tiny.kube
    kube.run("scale", "expert", "tiny-e3", "--replicas=1")
    wait_for("one pod is left", lambda: len(tiny.pods("tiny-e3")) == 1, 60)
    (before,) = tiny.pods("tiny-e3")
    node, only = before["spec"]["nodeName"], "--pod-selector=moeops.dev/expert=tiny-e3"
    with tiny.load(scripture) as load:
        try:
            flags = ("--ignore-daemonsets", "--delete-emptydir-data", only, "--timeout=90s")
            kube.run("drain", node, *flags)
            left = [p for p in tiny.pods("tiny-e3") if p["spec"].get("nodeName") != node]
            ready = [p for p in left if condition(p, "Ready").get("status") == "True"]
            assert ready, "the only pod went before another one was ready"
            wait_for("one pod is left", lambda: len(tiny.pods("tiny-e3")) == 1, 120)
            assert tiny.pods("tiny-e3")[0]["metadata"]["uid"] == ready[0]["metadata"]["uid"]
        finally:
            kube.run("uncordon", node)
        report = load.report()
    assert report.failed == 0, report.failures
