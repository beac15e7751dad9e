"""What people may do and how it is remembered: who asked, roles, history, ways back."""

from __future__ import annotations

import json

import pytest

from e2e.stage.kube import Body, KubectlError, wait_for
from e2e.stage.siblings import Pods
from e2e.stage.tiny import Tiny
from moe_client.recording import Recording

RESPONDER = ("--as=jane", "--as-group=responders")


def pause(name: str, **spec: str) -> str:
    body: Body = {
        "apiVersion": "moeops.dev/v1alpha1",
        "kind": "Override",
        "metadata": {"name": name},
        "spec": {
            "targetRef": {"kind": "Expert", "name": "tiny-e3"},
            "action": "Pause",
            "insteadOf": "v1",
            **spec,
        },
    }
    return json.dumps(body)


def test_nobody_asks_under_another_name(tiny: Tiny) -> None:
    with pytest.raises(KubectlError, match="requestedBy"):
        tiny.kube.run("create", "-f", "-", stdin=pause("forged", requestedBy="somebody-else"))
    tiny.kube.run("create", "-f", "-", stdin=pause("mine"))
    made = tiny.kube.get("override", "mine")
    assert made is not None
    assert made["spec"]["requestedBy"] == "kubernetes-admin"


def test_a_responder_may_take_back_and_nothing_else(tiny: Tiny) -> None:
    role = ("--clusterrole=moeops-responder", "--group=responders")
    tiny.kube.run("create", "rolebinding", "responders", *role)
    try:
        tiny.kube.run("create", "-f", "-", *RESPONDER, stdin=pause("janes"))
        made = tiny.kube.get("override", "janes")
        assert made is not None
        assert made["spec"]["requestedBy"] == "jane"
        change = ("patch", "expert", "tiny-e3", "--type=merge", "-p", '{"spec":{"replicas":1}}')
        with pytest.raises(KubectlError, match="forbidden"):
            tiny.kube.run(*change, *RESPONDER)
    finally:
        tiny.kube.delete("rolebinding", "responders")


def test_history_says_what_was_when_and_by_whom(tiny: Tiny, scripture: Recording) -> None:
    with tiny.load(scripture):
        tiny.roll_out("v2-better")
        wait_for("weight", lambda: tiny.expert()["status"].get("weight") == "5%", 90)
        done = tiny.kube.moe("abort", "tiny-e3", "--reason", "as a test", "--wait")
        assert done.returncode == 2, done.stderr
    table = tiny.kube.moe("history", "tiny-e3")
    assert table.returncode == 0, table.stderr
    newest = table.stdout.splitlines()[1]  # below the header
    assert "v2-better" in newest, table.stdout
    assert "Aborted" in newest, table.stdout
    assert "kubernetes-admin" in newest, table.stdout
    said = tiny.kube.moe("diff", "tiny-e3")
    assert said.returncode in (0, 5), said.stderr


def test_a_whole_epoch_comes_back_in_one(tiny: Tiny, scripture: Recording) -> None:
    siblings = Pods.of(tiny.kube, "tiny")
    with tiny.load(scripture) as load:
        tiny.roll_out("v2-better")
        tiny.wait_outcome("v2-better", "Promoted")
        promoted = tiny.kube.table("tiny")["epoch"]
        told = tiny.kube.moe("history", "mixture/tiny")
        assert told.returncode == 0, told.stderr
        done = tiny.kube.moe("rollback", "mixture/tiny", "--to", str(with_v1(tiny)), "--wait")
        assert done.returncode == 0, done.stdout + done.stderr
        back = tiny.kube.table("tiny")
        report = load.report()
    assert report.failed == 0, report.failures
    assert tiny.kube.table_row("tiny", "tiny-e3")["stable"]["version"] == "v1"
    assert back["epoch"] > promoted
    siblings.assert_untouched(tiny.kube, "tiny", "tiny-e3")
    assert tiny.kube.moe("resume", "mixture/tiny").returncode == 0


def with_v1(tiny: Tiny) -> int:
    """Return the newest epoch that is kept and served v1 of e3."""
    selector = "moeops.dev/mixture=tiny,!moeops.dev/expert,!moeops.dev/gate"
    epochs = tiny.kube.list("controllerrevisions", selector)
    return max(
        int(epoch["revision"])
        for epoch in epochs
        if epoch["data"]["experts"]["tiny-e3"]["version"] == "v1"
    )
