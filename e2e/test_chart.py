"""The chart is upgraded and taken back while a model is served: nobody notices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from e2e.stage.kube import Body, Kube, wait_for
from e2e.stage.release import CHART, ROOT, Release, chart_before
from e2e.stage.siblings import Pods, restarts
from e2e.stage.tiny import Tiny
from moe_client.recording import Recording

SYSTEM = Kube("moeops-system")
OPERATOR = "app.kubernetes.io/component=operator"


@pytest.fixture
def release() -> Iterator[Release]:
    """The release of `make install`; afterwards it is as it was."""
    release = Release()
    values = release.values()
    yield release
    release.upgrade(ROOT / CHART, values, "--wait")


def marked(values: Mapping[str, Any], mark: str) -> dict[str, Any]:
    """Return values with which the operator's pods are replaced."""
    operator = {**values.get("operator", {}), "podAnnotations": {"moeops.dev/e2e": mark}}
    return {**values, "operator": operator}


def marks() -> set[str]:
    """Return the marks that the operator's pods have."""
    pods = (pod["metadata"] for pod in SYSTEM.list("pods", OPERATOR))
    return {
        pod.get("annotations", {}).get("moeops.dev/e2e", "")
        for pod in pods
        if "deletionTimestamp" not in pod
    }


def uids(bodies: list[Body]) -> Mapping[str, tuple[str, int]]:
    return {body["metadata"]["name"]: (body["metadata"]["uid"], restarts(body)) for body in bodies}


def test_upgraded_and_rolled_back_under_load(
    tiny: Tiny, recording: Recording, release: Release, tmp_path: Path
) -> None:
    """From the previous commit's chart where it had one, else from this one with other values.

    Nothing waits for the operator under the previous chart: it may lack rights that the operator
    of this commit needs. What is served must not depend on it.
    """
    workers = Pods.of(tiny.kube, tiny.mixture)
    routers = uids(tiny.pods(component="router"))
    crds = uids(list(SYSTEM.list("crds")))
    values = release.values()
    with tiny.load(recording) as load:
        release.upgrade(chart_before(tmp_path) or ROOT / CHART, marked(values, "before"))
        before = release.revision()
        release.upgrade(ROOT / CHART, marked(values, "after"), "--wait", "--timeout=180s")
        wait_for("all operators are new", lambda: marks() == {"after"}, 60)
        release.test()
        release.roll_back(before)
        release.upgrade(ROOT / CHART, marked(values, "again"), "--wait", "--timeout=180s")
        wait_for("all operators are new", lambda: marks() == {"again"}, 60)
        release.test()
        report = load.report()
    assert report.failed == 0, report.failures
    workers.assert_untouched(tiny.kube, tiny.mixture)
    assert uids(tiny.pods(component="router")) == routers
    assert uids(list(SYSTEM.list("crds"))) == crds


def test_a_rollout_goes_on_through_an_upgrade(
    tiny: Tiny, scripture: Recording, release: Release
) -> None:
    """The operator that is upgraded in mid-canary goes on where the other one was."""
    siblings = Pods.of(tiny.kube, tiny.mixture)
    with tiny.load(scripture) as load:
        tiny.roll_out("v2-better")
        release.upgrade(ROOT / CHART, marked(release.values(), "meanwhile"), "--wait")
        tiny.wait_outcome("v2-better", "Promoted")
        report = load.report()
    assert report.failed == 0, report.failures
    assert tiny.weights() == [5, 25, 50, 100]
    siblings.assert_untouched(tiny.kube, tiny.mixture, "tiny-e3")
