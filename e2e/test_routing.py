"""What gates choose and experts bear, read through the API server by `kubectl moe`."""

from __future__ import annotations

import json

from e2e.stage.kube import Body
from e2e.stage.tiny import Tiny
from moe_client.recording import Recording

OBSERVER = ("--as=olga", "--as-group=observers")


def read(tiny: Tiny, *flags: str) -> Body:
    done = tiny.kube.moe("routing", "tiny", "-o", "json", *flags)
    assert done.returncode == 0, done.stderr
    said: Body = json.loads(done.stdout)
    return said


def test_what_a_gate_chose_is_counted_over_all_routers(tiny: Tiny, scripture: Recording) -> None:
    with tiny.load(scripture) as load:
        lately = read(tiny, "--window", "2s")
        report = load.report()
    assert report.failed == 0, report.failures
    assert lately["routers"] == len(tiny.pods(component="router"))
    assert lately["notCounted"] == []
    (gate,) = lately["gates"]
    assert [layer["layer"] for layer in gate["layers"]] == [0, 1, 2, 3]
    for layer in gate["layers"]:
        assert sum(layer["pairs"]) == gate["topK"] * layer["rows"]
    # Scripture is what e3 learned: over all layers nobody gets more of it.
    pairs = [sum(of) for of in zip(*(layer["pairs"] for layer in gate["layers"]), strict=True)]
    assert gate["experts"][pairs.index(max(pairs))] == "e3"
    ever = read(tiny, "--layer", "0")["gates"][0]["layers"]
    assert ever[0]["rows"] >= gate["layers"][0]["rows"]


def test_a_person_sees_a_line_for_each_layer(tiny: Tiny, recording: Recording) -> None:
    with tiny.load(recording):
        done = tiny.kube.moe("routing", "tiny")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[4:8]] == ["0", "1", "2", "3"]
    assert max(map(len, lines)) <= 100
    assert "\x1b" not in done.stdout


def test_a_person_sees_what_each_expert_bears(tiny: Tiny, scripture: Recording) -> None:
    with tiny.load(scripture) as load:
        done = tiny.kube.moe("top", "tiny", "-o", "json", "--sort-by", "rows")
        report = load.report()
    assert done.returncode == 0, done.stderr
    assert report.failed == 0, report.failures
    said: Body = json.loads(done.stdout)
    assert (said["routers"], said["notCounted"]) == (len(tiny.pods(component="router")), [])
    stable = [each for each in said["versions"] if each["role"] == "stable"]
    for each in stable:
        there = each["replicas"]
        assert there["wanted"] == there["ready"] == there["heard"], each
        assert 0 <= each["utilizationPercent"] <= 100
    assert stable[0]["expertId"] == "e3"  # which is what learned this text
    assert stable[0]["rowsPerSecond"] > 0


def test_who_may_look_into_routers_is_said_by_a_role(tiny: Tiny) -> None:
    may = ("auth", "can-i", "create", "pods", "--subresource=portforward", *OBSERVER)
    role = ("--clusterrole=moeops-observer", "--group=observers")
    tiny.kube.run("create", "rolebinding", "observers", *role)
    try:
        assert tiny.kube.run(*may).strip() == "yes"
        for kind in ("experts.moeops.dev", "deployments.apps"):
            assert tiny.kube.run("auth", "can-i", "list", kind, *OBSERVER).strip() == "yes"
    finally:
        tiny.kube.delete("rolebinding", "observers")
