"""Brings the mixture back to where every scenario begins: v1 of everything, all of it ready."""

from __future__ import annotations

from contextlib import suppress

from e2e.stage import nodes
from e2e.stage.kube import Timeout, condition, wait_for
from e2e.stage.tiny import Tiny
from examples.tiny.publish import SERVE

# Without evidence: scenarios that are about it ask for it.
AT_ONCE = {
    "steps": [{"weightPercent": 100, "pauseSeconds": 0}],
    "minRequests": 0,
    "shadowPercent": 0,
    "scaleDownDelaySeconds": 1,
}


def restore(tiny: Tiny) -> None:
    """Start nodes that are off, remove Overrides, apply the manifests, wait for the end of it all.

    Versions that were on trial are taken back by the spec alone, as a person would do it.
    """
    kube = tiny.kube
    for node in kube.list("nodes"):
        if condition(node, "Ready").get("status") != "True":
            nodes.start(node["metadata"]["name"], kube)
    kube.run("delete", "overrides", "--all", "--wait")
    kube.apply(SERVE)
    _serve_first_versions(tiny)
    for gate in kube.list("gates"):
        kube.patch("gate", gate["metadata"]["name"], {"spec": {"rollout": AT_ONCE}})
    for expert in kube.list("experts"):
        if not (SERVE / f"{expert['spec']['expertId']}.yaml").exists():
            kube.delete("expert", expert["metadata"]["name"], wait=False)
    tiny.wait_ready()

    # The golden set takes its time; scenarios that are about it put it back.
    kube.patch("mixture", tiny.mixture, {"spec": {"evaluation": None}})
    # What lost is kept warm for minutes; nobody comes back to it here.
    for expert in kube.list("experts"):
        patch = {"spec": {"rollout": {"scaleDownDelaySeconds": 1}}}
        kube.patch("expert", expert["metadata"]["name"], patch)

    def settled() -> bool:
        table = kube.table(tiny.mixture)
        rows = table["experts"]
        if any("deletionTimestamp" in pod["metadata"] for pod in tiny.pods()):
            return False  # one that drains may be taken for one that serves
        return all(
            row.get("stable", {}).get("version") == "v1"
            and "candidate" not in row
            and "previous" not in row
            for row in (*rows, *table["gates"])
        ) and len(kube.list("deployments", "moeops.dev/component=worker")) == len(rows)

    wait_for("all experts serve v1, and nothing else is left", settled, 180, interval_s=0.5)
    # After a node came back the operator moves pods apart, one by one, in minutes: no scenario is
    # to take that for its own doing, or to wait for it.
    _move_apart(tiny)
    with suppress(Timeout):
        tiny.wait_spread(240)


def _move_apart(tiny: Tiny) -> None:
    """Delete one of the pods of everything that is on one node only."""
    together = {name for name, nodes in tiny.places().items() if len(nodes) == 1}
    for pod in (*tiny.pods(), *tiny.pods(component="router")):
        name = pod["metadata"]["labels"].get("moeops.dev/expert", "routers")
        if name in together:
            together.remove(name)
            tiny.kube.delete("pod", pod["metadata"]["name"], wait=False)


def _serve_first_versions(tiny: Tiny) -> None:
    """Have v1 served where another version was promoted and v1 is not even kept any more.

    The way back is a rollout then, whose evidence nobody here would give.
    """
    kube = tiny.kube

    def others() -> list[str]:
        table = kube.get("routingtable", tiny.mixture)
        rows = [] if table is None else table["spec"]["experts"]
        return [row["name"] for row in rows if row.get("stable", {}).get("version", "v1") != "v1"]

    names = others()
    if names:
        kube.patch("mixture", tiny.mixture, {"spec": {"evaluation": None}})
        for name in names:
            kube.patch("expert", name, {"spec": {"rollout": AT_ONCE}})
        for gate in kube.list("gates"):  # one that goes back with them asks for evidence, too
            kube.patch("gate", gate["metadata"]["name"], {"spec": {"rollout": AT_ONCE}})
        wait_for("v1 of every expert is served", lambda: not others(), 180)
        kube.apply(SERVE)
