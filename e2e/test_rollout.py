"""New versions of one expert: promoted, taken back, refused; siblings never notice."""

from __future__ import annotations

import pytest
import yaml

from e2e.conftest import ROOT
from e2e.stage import nodes
from e2e.stage.kube import Body, condition, wait_for
from e2e.stage.siblings import Pods
from e2e.stage.tiny import Tiny
from examples.tiny.publish import ROLLOUTS
from moe_client.recording import Recording
from moe_client.steady import SteadyLoad
from tests.support.artifacts import write_expert


def assert_nothing_failed(load: SteadyLoad) -> None:
    report = load.report()
    assert report.failed == 0, report.failures


def test_a_better_version_goes_up_step_by_step_and_is_promoted(
    tiny: Tiny, scripture: Recording
) -> None:
    siblings = Pods.of(tiny.kube, "tiny")
    with tiny.load(scripture) as load:
        tiny.roll_out("v2-better")
        expert = tiny.wait_outcome("v2-better", "Promoted")
        assert_nothing_failed(load)
    assert tiny.weights() == [5, 25, 50, 100]
    assert expert["status"]["version"] == "v2-better"
    siblings.assert_untouched(tiny.kube, "tiny", "tiny-e3")
    done = tiny.kube.moe("status", "ex/tiny-e3", "--wait", "--timeout", "60s")
    assert (done.returncode, "v2-better" in done.stdout) == (0, True), done.stderr


def test_a_broken_version_is_taken_back_by_itself(tiny: Tiny, scripture: Recording) -> None:
    siblings = Pods.of(tiny.kube, "tiny")
    with tiny.load(scripture) as load:
        tiny.roll_out("v3-broken")
        expert = tiny.wait_outcome("v3-broken", "RolledBack")
        assert_nothing_failed(load)
        assert load.report().different == 0, "a row of the broken version was used"
    assert expert["status"]["version"] == "v1"
    assert "finite" in expert["status"]["rollout"]["message"]
    assert expert["spec"]["version"] == "v3-broken"
    siblings.assert_untouched(tiny.kube, "tiny", "tiny-e3")
    done = tiny.kube.moe("status", "ex/tiny-e3", "--wait", "--timeout", "30s")
    assert done.returncode == 2, done.stdout + done.stderr


def test_rolling_back_a_promoted_version_by_hand(tiny: Tiny, scripture: Recording) -> None:
    with tiny.load(scripture) as load:
        tiny.roll_out("v2-better")
        tiny.wait_outcome("v2-better", "Promoted")
        done = tiny.kube.moe("rollback", "tiny-e3", "--reason", "as a test", "--wait")
        assert done.returncode == 0, done.stderr
        row = tiny.kube.table_row("tiny", "tiny-e3")
        assert row["stable"]["version"] == "v1"
        assert_nothing_failed(load)
    again = tiny.kube.moe("rollback", "tiny-e3", "--to", "v1")
    assert "skipped rollback" in again.stderr
    (override,) = tiny.kube.list("overrides")
    assert override["spec"]["requestedBy"] == "kubernetes-admin"
    assert override["spec"]["reason"] == "as a test"


def test_pause_resume_abort_and_promote(tiny: Tiny, scripture: Recording) -> None:
    with tiny.load(scripture):
        tiny.roll_out("v2-better")
        wait_for("weight", lambda: tiny.expert()["status"].get("weight") == "5%", 60)
        assert tiny.kube.moe("pause", "tiny-e3", "--wait", "--timeout", "30s").returncode == 4
        held = tiny.weights()
        assert tiny.kube.moe("resume", "tiny-e3").returncode == 0
        wait_for("it goes on", lambda: tiny.outcome() == "Progressing", 30)
        assert tiny.weights()[: len(held)] == held
        assert tiny.kube.moe("abort", "tiny-e3", "--wait", "--timeout", "30s").returncode == 2
        assert tiny.outcome() == "Aborted"
        assert tiny.kube.moe("retry", "tiny-e3").returncode == 0
        wait_for("it is on trial again", lambda: tiny.outcome() == "Progressing", 60)
        wait_for("weight", lambda: tiny.expert()["status"].get("weight") == "5%", 60)
        assert tiny.kube.moe("promote", "tiny-e3", "--wait", "--timeout", "60s").returncode == 0
    assert tiny.expert()["status"]["version"] == "v2-better"


def bad_version(case: str) -> Body:
    """Return expert e3 with an artifact that can never be served."""
    body: Body = yaml.safe_load((ROLLOUTS / "e3-v2-better.yaml").read_text())
    artifact = body["spec"]["artifact"]
    body["spec"]["version"] = f"v9-{case}"
    match case:
        case "missing":
            artifact["uri"] = artifact["uri"].replace("v2-better", "nowhere")
            artifact["sha256"] = "0" * 64
        case "wrong-digest":
            artifact["sha256"] = "1" * 64
        case "wrong-shapes":
            artifact |= narrow_artifact()
    return body


def narrow_artifact() -> Body:
    """Write an artifact of another hidden size where nodes see it; return its uri and digest."""
    folder = ROOT / ".moe" / "artifacts" / "tiny" / "narrow"
    folder.mkdir(exist_ok=True)
    written = write_expert(folder, layers=range(4), hidden_size=48)
    uri = f"file:///moe/artifacts/tiny/narrow/{written.path.name}"
    return {"uri": uri, "sha256": written.sha256}


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("missing", "nowhere"),
        ("wrong-digest", "1111111111"),
        ("wrong-shapes", "48"),
    ],
)
def test_an_artifact_that_cannot_be_served_never_is(tiny: Tiny, case: str, words: str) -> None:
    siblings = Pods.of(tiny.kube, "tiny")
    tiny.kube.apply(bad_version(case))
    expert = tiny.wait_outcome(f"v9-{case}", "RolledBack")
    row = tiny.kube.table_row("tiny", "tiny-e3")
    assert row["stable"]["version"] == "v1"
    assert row["rollout"]["weights"] == []
    assert words in condition(expert, "Progressing")["message"]
    assert condition(expert, "Ready")["status"] == "True"
    siblings.assert_untouched(tiny.kube, "tiny", "tiny-e3")


def test_the_only_pod_of_a_candidate_is_killed_under_load(tiny: Tiny, scripture: Recording) -> None:
    with tiny.load(scripture) as load:
        tiny.roll_out("v2-better")
        # At 5% nobody may begin in the seconds without it, who could notice.
        wait_for("weight", lambda: tiny.expert()["status"].get("weight") == "25%", 60)
        sha256 = tiny.kube.table_row("tiny", "tiny-e3")["candidate"]["sha256"]
        (pod,) = tiny.pods("tiny-e3", digest=sha256[:10])
        nodes.kill_process(pod, "moe_worker")
        expert = tiny.wait_outcome("v2-better", "RolledBack")
        assert_nothing_failed(load)
    assert expert["status"]["version"] == "v1"
    said = expert["status"]["rollout"]["message"]
    assert "gone under load" in said or "attempts failed" in said, said
