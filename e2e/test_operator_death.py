"""The leading operator dies in every phase of a rollout, and all status is lost: nothing served
changes, and another operator goes on.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import yaml

from e2e.stage import nodes
from e2e.stage.kube import Body, Kube, wait_for
from e2e.stage.siblings import Pods, restarts
from e2e.stage.tiny import Tiny
from examples.tiny.publish import ROLLOUTS
from moe_client.recording import Recording

SYSTEM = Kube("moeops-system")
OPERATOR = "app.kubernetes.io/component=operator"
UNHURRIED = {"maxLatencyIncreasePercent": 100_000, "maxTailLatencyIncreasePercent": 100_000}


def kill_operator() -> None:
    """Delete the pod that leads without grace, and wait until another one leads in its place."""
    killed = leader()
    SYSTEM.run("delete", "pod", killed, "--grace-period=0", "--force")

    def another() -> bool:
        now = leader()
        return now not in ("", killed) and any(
            pod["metadata"]["name"] == now and ready(pod) and not deleting(pod)
            for pod in SYSTEM.list("pods", OPERATOR)
        )

    wait_for("another operator leads", another, 60)


def leader() -> str:
    """Return the name of the pod that leads; empty where none does."""
    lease = SYSTEM.get("lease", "moeops-operator") or {}
    return str(lease.get("spec", {}).get("holderIdentity") or "")


def ready(pod: Body) -> bool:
    statuses = pod.get("status", {}).get("containerStatuses", [])
    return bool(statuses) and all(status["ready"] for status in statuses)


def deleting(pod: Body) -> bool:
    return "deletionTimestamp" in pod["metadata"]


def rollout(tiny: Tiny) -> Body:
    found: Body = tiny.kube.table_row("tiny", "tiny-e3").get("rollout", {})
    return found


def roll_out(tiny: Tiny) -> None:
    """Ask for the version, and wait until the table knows: an earlier scenario may have, too.

    Operators that start take these few cores again and again: its latency is not judged.
    """
    earlier = rollout(tiny).get("revision")
    body = yaml.safe_load((ROLLOUTS / "e3-v2-better.yaml").read_text())
    body["spec"]["rollout"]["analysis"] = UNHURRIED
    tiny.kube.apply(body)
    wait_for("it is known", lambda: rollout(tiny).get("revision") != earlier, 120)


def started(tiny: Tiny) -> bool:
    """The table knows of the rollout, and no session sees it yet."""
    return bool(rollout(tiny)["target"]["version"] == "v2-better")


def at(percent: int) -> Callable[[Tiny], bool]:
    """Return whether the candidate has come to this weight."""

    def reached(tiny: Tiny) -> bool:
        weights = rollout(tiny)["weights"]
        return started(tiny) and bool(weights) and weights[-1]["percent"] >= percent

    return reached


def promoted(tiny: Tiny) -> bool:
    return bool(rollout(tiny)["outcome"] == "Promoted") and started(tiny)


def test_killed_in_every_phase_of_a_rollout(tiny: Tiny, scripture: Recording) -> None:
    siblings = Pods.of(tiny.kube, "tiny")
    before = number_of_revisions(tiny)
    with tiny.load(scripture) as load:
        roll_out(tiny)
        for phase in (started, at(5), at(25), at(50), promoted):
            wait_for("the next phase", lambda phase=phase: phase(tiny), 120)  # type: ignore[misc]
            weights = rollout(tiny)["weights"]
            kill_operator()
            assert rollout(tiny)["weights"][: len(weights)] == weights, "a step was lost"
        tiny.wait_outcome("v2-better", "Promoted")
        report = load.report()
    assert report.failed == 0, report.failures
    assert tiny.weights() == [5, 25, 50, 100]
    assert number_of_revisions(tiny) == before + 1, "the version was accepted more than once"
    siblings.assert_untouched(tiny.kube, "tiny", "tiny-e3")


def test_a_leader_that_slept_changes_nothing(tiny: Tiny, scripture: Recording) -> None:
    """It is stopped in mid-canary; another one goes on, and the first finds that it leads no more.

    It is continued before its kubelet gives it up, so that it is the same process that wakes.
    """
    with tiny.load(scripture) as load:
        roll_out(tiny)
        wait_for("weight", lambda: at(5)(tiny), 120)
        (asleep,) = (p for p in SYSTEM.list("pods", OPERATOR) if p["metadata"]["name"] == leader())
        name = asleep["metadata"]["name"]
        nodes.halt_process(asleep, "moe_operator")
        wait_for("another one leads", lambda: leader() not in ("", name), 60)
        nodes.continue_process(asleep, "moe_operator")
        wait_for("it knows", lambda: "leads_no_longer" in SYSTEM.run("logs", name), 60)
        tiny.wait_outcome("v2-better", "Promoted")
        report = load.report()
    assert report.failed == 0, report.failures
    assert tiny.weights() == [5, 25, 50, 100]
    assert leader() not in ("", name)
    (awake,) = (p for p in SYSTEM.list("pods", OPERATOR) if p["metadata"]["name"] == name)
    assert restarts(awake) == restarts(asleep), "another process woke than went to sleep"


def number_of_revisions(tiny: Tiny) -> int:
    """Return the newest number that a revision of the expert has."""
    revisions = tiny.kube.list("controllerrevisions", "moeops.dev/expert=tiny-e3")
    return max(int(revision["revision"]) for revision in revisions)


@pytest.mark.parametrize("percent", [5])
def test_status_wiped_in_the_middle_of_a_canary(
    tiny: Tiny, scripture: Recording, percent: int
) -> None:
    with tiny.load(scripture) as load:
        roll_out(tiny)
        wait_for("weight", lambda: at(percent)(tiny), 120)
        before = tiny.kube.table_row("tiny", "tiny-e3")
        for kind in ("experts", "gates", "mixtures"):
            for body in tiny.kube.list(kind):
                name = body["metadata"]["name"]
                tiny.kube.patch(kind, name, {"status": None}, "--subresource=status")
        after = tiny.kube.table_row("tiny", "tiny-e3")
        assert after["stable"] == before["stable"]
        weights = before["rollout"]["weights"]
        assert after["rollout"]["weights"][: len(weights)] == weights, "it began anew"
        tiny.wait_outcome("v2-better", "Promoted")
        report = load.report()
    assert report.failed == 0, report.failures
    assert tiny.weights() == [5, 25, 50, 100]
