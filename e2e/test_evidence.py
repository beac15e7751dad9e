"""What a candidate is judged by: a golden set in the dark, copies, and what clients found.

Each time a version that is no good is taken back before, or soon after, a session sees it, and one
that is good is not.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import pytest
import torch
import yaml

import moe_client
from e2e.stage.kube import Body, condition, wait_for
from e2e.stage.siblings import Pods
from e2e.stage.tiny import Models, Tiny
from e2e.stage.watching import Watch
from examples.tiny import model as example
from examples.tiny.publish import ROLLOUTS, SERVE
from moe_client.recording import Recording


@pytest.fixture
def judged(tiny: Tiny) -> Tiny:
    """The mixture with its golden set, which other scenarios do without."""
    tiny.kube.apply(SERVE / "mixture.yaml")
    return tiny


def findings(expert: Body) -> dict[str, tuple[str, str]]:
    """Return what is known of a rollout: state and message by name."""
    listed = expert["status"]["rollout"].get("evidence", ())
    return {finding["name"]: (finding["state"], finding["message"]) for finding in listed}


def test_a_worse_version_is_taken_back_in_the_dark(judged: Tiny, scripture: Recording) -> None:
    siblings = Pods.of(judged.kube, "tiny")
    with judged.load(scripture) as load:
        judged.roll_out("v2-worse")
        expert = judged.wait_outcome("v2-worse", "RolledBack")
        report = load.report()
    assert (report.failed, report.different) == (0, 0), report.failures
    said = expert["status"]["rollout"]["message"]
    assert "golden set" in said
    assert "of 96 sequences" in said
    assert judged.kube.table_row("tiny", "tiny-e3")["rollout"]["weights"] == []
    wait_for("the evaluator is gone", lambda: not evaluators(judged), 30)
    done = judged.kube.moe("status", "ex/tiny-e3", "--wait", "--timeout", "30s")
    assert (done.returncode, "golden set" in done.stdout) == (2, True), done.stdout
    siblings.assert_untouched(judged.kube, "tiny", "tiny-e3")


def test_a_better_version_passes_though_its_evaluator_is_lost_once(
    judged: Tiny, scripture: Recording
) -> None:
    with judged.load(scripture) as load:
        judged.roll_out("v2-better")
        first = wait_for("an evaluator runs", lambda: evaluators(judged) or None, 90)[0]
        name, uid = first["metadata"]["name"], first["metadata"]["uid"]
        judged.kube.run("delete", "pod", name, "--grace-period=0", "--force")
        wait_for("it is made again", lambda: uid not in uids(evaluators(judged)) or None, 60)
        evaluated = wait_for("it passed", lambda: rollout(judged).get("evaluated"), 180)
        wait_for("weight", lambda: judged.weights() or None, 30)
        state, message = findings(judged.expert())["golden"]
        judged.wait_outcome("v2-better", "Promoted")
        report = load.report()
    assert report.failed == 0, report.failures
    assert "of 96 sequences" in evaluated
    assert (state, message) == ("Pass", evaluated)
    assert judged.weights() == [5, 25, 50, 100]


def evaluators(tiny: Tiny) -> list[Body]:
    return tiny.pods(component="evaluator")


def uids(pods: list[Body]) -> set[str]:
    return {pod["metadata"]["uid"] for pod in pods}


def rollout(tiny: Tiny, name: str = "tiny-e3") -> Body:
    found: Body = tiny.kube.table_row("tiny", name)["rollout"]
    return found


def test_copies_of_rows_show_in_the_dark_that_a_version_is_broken(
    tiny: Tiny, recording: Recording
) -> None:
    """No session ever sees it: what stable answered is computed again, only to be counted."""
    with tiny.load(recording) as load:
        body = manifest("e2-v2-broken")
        body["spec"]["rollout"] |= {
            "shadowPercent": 100,
            "steps": [{"weightPercent": 1, "pauseSeconds": 600}, {"weightPercent": 100}],
        }
        tiny.kube.apply(body)
        expert = tiny.wait_outcome("v2-broken", "RolledBack", "tiny-e2")
        report = load.report()
    assert (report.failed, report.different) == (0, 0), report.failures
    assert "not finite" in expert["status"]["rollout"]["message"]


def test_too_little_evidence_pauses_and_goes_on_by_itself(
    tiny: Tiny, scripture: Recording, watch: Watch | None
) -> None:
    body = manifest("e3-v2-better")
    body["spec"]["rollout"]["evidenceDeadlineSeconds"] = 5
    tiny.kube.apply(body)

    def missing() -> bool:
        return condition(tiny.expert(), "Progressing").get("reason") == "EvidenceMissing"

    wait_for("it is missing", missing, 90)
    held = tiny.weights()
    done = tiny.kube.moe("status", "ex/tiny-e3", "--wait", "--timeout", "30s")
    assert done.returncode == 4, done.stdout + done.stderr
    assert tiny.weights() == held == [5]
    if watch:
        wait_for("it is told", lambda: "MoeCanaryStuck" in watch.fired(), 60)
    with tiny.load(scripture) as load:
        tiny.wait_outcome("v2-better", "Promoted", timeout_s=360)
        report = load.report()
    assert report.failed == 0, report.failures


def manifest(name: str) -> Body:
    """Return the manifest of a new version, to be changed before it is applied."""
    body: Body = yaml.safe_load((ROLLOUTS / f"{name}.yaml").read_text())
    return body


def texts(domain: str, length: int = 96) -> Iterator[torch.Tensor]:
    """Give pieces of held-out text without end, one session each."""
    data = example.heldout(domain)
    while True:
        for start in range(0, len(data) - length, length):
            yield torch.tensor([list(data[start : start + length])])


def test_what_clients_report_takes_a_worse_version_back(tiny: Tiny, models: Models) -> None:
    """Each session says what loss it read with; the candidate's sessions against stable's."""
    body = manifest("e3-v2-worse")
    body["spec"]["rollout"] |= {
        "steps": [{"weightPercent": 50, "pauseSeconds": 1}, {"weightPercent": 100}],
        "analysis": {"outcomes": {"maxLossIncrease": "5%"}},
    }
    with moe_client.attach(
        models.remote, tiny.addresses(), mixture="tiny", report_outcomes=True
    ) as attachment:
        pieces = texts("scripture")
        forward(models, next(pieces))
        tiny.kube.apply(body)
        for _ in range(2_000):
            forward(models, next(pieces))
            if tiny.outcome() == "RolledBack":
                break
        assert attachment.counters.failed == 0
        assert attachment.counters.reported > 60
    expert = tiny.expert()
    assert expert["status"]["rollout"]["outcome"] == "RolledBack"
    assert "outcomes" in expert["status"]["rollout"]["message"]
    assert expert["status"]["version"] == "v1"


@torch.inference_mode()
def forward(models: Models, tokens: torch.Tensor) -> None:
    """Read a text in a session of its own, which may lose its version when that is taken back."""
    with suppress(moe_client.Repinned):
        models.remote(input_ids=tokens, use_cache=False)
