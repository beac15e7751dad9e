"""Observation: from objects to a World, and sentences for what cannot be read."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from moe_core.policy import Policy
from moe_core.rollout import Version
from moe_core.rows import GateRow, GateVariant
from moe_operator import revisions, snapshots
from moe_operator.cache import Cache, Key
from moe_operator.journal import BrokenTable
from moe_operator.kinds import KINDS
from moe_operator.observe import deployment_seen, node_seen, observe, pod_seen
from moe_operator.world import Revision, Snapshot
from tests.operator.engine.bodies import expert, gate, labelled, mixture, override, own, sha

TINY = Key("default", "tiny")


def cache_of(*bodies: dict[str, Any]) -> Cache:
    cache = Cache()
    for number, body in enumerate(bodies, start=1):
        meta = {"uid": f"u{number}", "resourceVersion": str(number), **body["metadata"]}
        cache.put(KINDS[body["kind"]], {**body, "metadata": meta})
    return cache


TABLE = {
    "mixture": "tiny",
    "epoch": 3,
    "hiddenSize": 64,
    "layers": 2,
    "dtype": "Float32",
    "failover": {"ladder": ["Replica"], "maxDegradedPercent": 50},
    "gates": [],
    "experts": [],
}


def test_nothing_is_known_of_a_mixture_without_objects() -> None:
    assert observe(Cache(), TINY, (), ()) is None


def test_all_kinds_of_a_mixture_are_seen() -> None:
    serve = override("back", "tiny-e1", "Serve", version="v1", insteadOf="v2")
    cache = cache_of(
        expert("e1"),
        expert("e0"),
        gate("e0", "e1"),
        mixture(),
        serve,
        own("RoutingTable", "tiny", TABLE),
    )
    world = observe(cache, TINY, (), ())
    assert world is not None
    assert world.mixture is not None
    assert world.mixture.hidden_size == 64
    assert [e.expert_id for e in world.experts] == ["e0", "e1"]
    assert [g.experts for g in world.gates] == [("e0", "e1")]
    assert [o.target for o in world.overrides] == ["tiny-e1"]
    assert world.table is not None
    assert (world.table.table.epoch, world.table.table.uid) == (3, "u6")
    assert world.table.resource_version == "6"


def test_an_object_that_cannot_be_read_is_named_with_a_sentence() -> None:
    cache = cache_of(mixture(hiddenSize=0), expert("e0", version=7), expert("e1"))  # type: ignore[arg-type]
    world = observe(cache, TINY, (), ())
    assert world is not None
    assert world.mixture is None
    assert [e.expert_id for e in world.experts] == ["e1"]
    assert [(found.kind, found.meta.name, found.sentence) for found in world.invalid] == [
        ("Mixture", "tiny", "spec.hiddenSize is 0; it must be 1 or more"),
        ("Expert", "tiny-e0", "spec.version is 7; it must be text"),
    ]


def test_a_table_that_cannot_be_read_stops_every_decision() -> None:
    cache = cache_of(mixture(), own("RoutingTable", "tiny", {**TABLE, "epoch": "three"}))
    with pytest.raises(BrokenTable, match=r"tiny cannot be read: spec\.epoch is 'three'"):
        observe(cache, TINY, (), ())


def test_a_revision_is_read_as_it_was_written_and_a_broken_one_is_passed_over() -> None:
    version = Version("v2", sha("b"), "file:///b")
    revision = Revision("tiny-e0", 3, version, {"spec": {"x": 1}}, "tiny-e0-3")
    body = revisions.to_body(revision, TINY, {"metadata": {"uid": "owner"}})
    assert body["metadata"]["name"] == "tiny-e0-3"
    broken = labelled("ControllerRevision", "tiny-e0-2", api="apps/v1", revision=2, data={})
    world = observe(cache_of(broken, body), TINY, (), ())
    assert world is not None
    (found,) = world.revisions
    assert (found.expert, found.number, found.version) == ("tiny-e0", 3, revision.version)
    assert found.template == {"spec": {"x": 1}}
    assert (found.name, found.uid) == ("tiny-e0-3", "u2")


def test_an_epoch_is_read_as_it_was_written_and_is_no_revision_of_an_expert() -> None:
    version = Version("v2", sha("b"), "file:///b")
    variant = GateVariant("g1", sha("b"), "file:///g", ("e0",), Policy(1))
    gates = (GateRow("tiny-gate", (0, 1), variant),)
    snapshot = Snapshot(7, {"tiny-e0": version}, gates, "tiny.7")
    body = snapshots.to_body(snapshot, TINY, {"metadata": {"uid": "owner"}})
    broken = labelled("ControllerRevision", "tiny.6", api="apps/v1", revision=6, data={})
    world = observe(cache_of(broken, body), TINY, (), ())
    assert world is not None
    (found,) = world.snapshots
    assert (found.epoch, found.experts, found.gates) == (7, {"tiny-e0": version}, gates)
    assert (found.name, found.uid, world.revisions) == ("tiny.7", "u2", ())


def test_children_carry_the_hash_that_was_applied() -> None:
    service = labelled("Service", "tiny-router")
    service["metadata"]["annotations"] = {"moeops.dev/applied-hash": "abc"}
    bare = labelled("Deployment", "tiny-router", api="apps/v1", spec={"replicas": 2})
    world = observe(cache_of(service, bare), TINY, (), ())
    assert world is not None
    assert world.applied == {("Service", "tiny-router"): "abc", ("Deployment", "tiny-router"): ""}


def test_a_deployment_tells_its_version_its_pods_and_why_there_are_none() -> None:
    body = labelled(
        "Deployment",
        "tiny-e0-bbbbbbbbbb",
        labels={
            "moeops.dev/component": "worker",
            "moeops.dev/expert": "tiny-e0",
            "moeops.dev/digest": "bbbbbbbbbb",
        },
        spec={"replicas": 2},
        status={
            "readyReplicas": 1,
            "conditions": [
                {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota: pods"}
            ],
        },
    )
    body["metadata"] |= {"uid": "u", "resourceVersion": "5"}
    body["metadata"]["annotations"] = {"moeops.dev/epoch": "12"}
    seen = deployment_seen(body)
    assert (seen.component, seen.expert, seen.digest) == ("worker", "tiny-e0", "bbbbbbbbbb")
    assert (seen.replicas, seen.ready_replicas, seen.stamped_epoch) == (2, 1, 12)
    assert seen.unavailable_reason == "exceeded quota: pods"


@pytest.mark.parametrize(
    ("status", "ended", "succeeded", "message"),
    [
        pytest.param({"phase": "Running"}, False, False, "", id="it runs"),
        pytest.param(
            {
                "phase": "Succeeded",
                "containerStatuses": [
                    {
                        "state": {
                            "terminated": {"finishedAt": "2026-01-01T00:00:07Z", "message": "{}"}
                        }
                    }
                ],
            },
            True,
            True,
            "{}",
            id="it has said what it found",
        ),
        pytest.param(
            {
                "phase": "Failed",
                "containerStatuses": [
                    {
                        "state": {
                            "terminated": {
                                "finishedAt": "2026-01-01T00:00:07Z",
                                "message": '{"error": "x"}',
                            }
                        }
                    }
                ],
            },
            True,
            False,
            '{"error": "x"}',
            id="it has said why it failed",
        ),
        pytest.param(
            {
                "phase": "Failed",
                "reason": "Evicted",
                "conditions": [
                    {
                        "type": "Ready",
                        "status": "False",
                        "lastTransitionTime": "2026-01-01T00:00:07Z",
                    }
                ],
            },
            True,
            False,
            "",
            id="it was evicted before it ran",
        ),
    ],
)
def test_a_pod_that_ends_tells_when_and_its_last_words(
    status: dict[str, Any], ended: bool, succeeded: bool, message: str
) -> None:
    body = labelled("Pod", "x", status=status)
    stamp = {"uid": "u", "resourceVersion": "5", "creationTimestamp": "2026-01-01T00:00:00Z"}
    body["metadata"] |= stamp
    seen = pod_seen(body)
    at = datetime(2026, 1, 1, 0, 0, 7, tzinfo=UTC) if ended else None
    assert (seen.ended, seen.succeeded, seen.message) == (at, succeeded, message)
    assert seen.over is ended


def condition(name: str, status: str, **more: str) -> dict[str, str]:
    return {"type": name, "status": status, **more}


@pytest.mark.parametrize(
    ("status", "problem"),
    [
        pytest.param({"conditions": [condition("Ready", "True")]}, "", id="serving"),
        pytest.param(
            {
                "conditions": [
                    condition("PodScheduled", "False", reason="Unschedulable", message="0/3 nodes")
                ]
            },
            "Unschedulable: 0/3 nodes",
            id="no node has room",
        ),
        pytest.param(
            {"containerStatuses": [{"state": {"waiting": {"reason": "ContainerCreating"}}}]},
            "",
            id="on its way",
        ),
        pytest.param(
            {
                "containerStatuses": [
                    {"state": {"waiting": {"reason": "ErrImagePull", "message": "no such image"}}}
                ]
            },
            "ErrImagePull: no such image",
            id="image missing",
        ),
        pytest.param(
            {
                "containerStatuses": [
                    {
                        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                        "lastState": {"terminated": {"message": "bad flag"}},
                    }
                ]
            },
            "CrashLoopBackOff: bad flag",
            id="crashing",
        ),
        pytest.param(
            {"phase": "Failed", "reason": "Evicted", "message": "disk"},
            "Evicted: disk",
            id="evicted",
        ),
    ],
)
def test_a_pod_tells_why_it_does_not_run(status: dict[str, Any], problem: str) -> None:
    body = labelled("Pod", "p", status=status, spec={"nodeName": "n1"})
    body["metadata"] |= {"uid": "u", "resourceVersion": "5"}
    body["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
    seen = pod_seen(body)
    assert seen.problem == problem
    assert seen.ready == (problem == "" and "conditions" in status)
    assert seen.over == (status.get("phase") == "Failed")


SINCE = "2026-01-01T00:00:07Z"
READY = condition("Ready", "True", lastTransitionTime=SINCE)


@pytest.mark.parametrize(
    ("spec", "status", "takes_pods"),
    [
        pytest.param({}, {"conditions": [READY]}, True, id="ready"),
        pytest.param({"unschedulable": True}, {"conditions": [READY]}, False, id="cordoned"),
        pytest.param(
            {"taints": [{"key": "gpu", "effect": "NoSchedule"}]},
            {"conditions": [READY]},
            False,
            id="tainted",
        ),
        pytest.param(
            {"taints": [{"key": "old", "effect": "PreferNoSchedule"}]},
            {"conditions": [READY]},
            True,
            id="only preferred by others",
        ),
        pytest.param({}, {"conditions": [condition("Ready", "Unknown")]}, False, id="lost"),
        pytest.param({}, {}, False, id="never seen"),
    ],
)
def test_a_node_tells_whether_it_takes_pods(
    spec: dict[str, Any], status: dict[str, Any], takes_pods: bool
) -> None:
    meta = {"name": "n1", "uid": "u", "resourceVersion": "5", "labels": {"zone": "a"}}
    seen = node_seen({"kind": "Node", "metadata": meta, "spec": spec, "status": status})
    assert (seen.ready and seen.schedulable) == takes_pods
    assert seen.labels == {"zone": "a"}
    assert seen.ready_since == (datetime.fromisoformat(SINCE) if READY in _of(status) else None)


def _of(status: dict[str, Any]) -> list[dict[str, str]]:
    return list(status.get("conditions", []))


def test_nodes_belong_to_every_mixture() -> None:
    node = {"kind": "Node", "metadata": {"name": "n1"}, "spec": {}, "status": {}}
    world = observe(cache_of(mixture(), node), TINY, (), ())
    assert world is not None
    assert [found.name for found in world.nodes] == ["n1"]
