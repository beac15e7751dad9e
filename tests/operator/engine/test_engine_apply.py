"""Carrying out plans: in order, once, fenced, and seen by the next plan."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from moe_core.rollout import Version
from moe_core.rows import ExpertRow, Role
from moe_core.table import Failover, Table
from moe_operator.apply import Apply, difference
from moe_operator.cache import Cache, Key
from moe_operator.cluster import Conflict, Refused, Unavailable
from moe_operator.intent import Delete, Manifest, Note, Plan, Status
from moe_operator.kinds import DEPLOYMENT, KINDS, ROUTING_TABLE, metadata
from moe_operator.notes import Notes
from moe_operator.observe import observe
from moe_operator.world import Revision, World
from tests.fakes.kube_api import KubeApi
from tests.operator.engine.bodies import expert, labelled, mixture, override, sha

TINY = Key("default", "tiny")
V1 = Version("v1", sha("a"), "file:///a")
V2 = Version("v2", sha("b"), "file:///b")


class Bench:
    """An API server, a cache that follows it, and what applies plans."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.api = KubeApi()
        self.cache = Cache()
        self.notes = Notes(self.api, self.cache, lambda: self.now)
        self.apply = Apply(self.api, self.api, self.cache, self.notes)
        for body in (mixture(), expert("e0")):
            self.see(body)

    def see(self, body: dict[str, Any]) -> None:
        self.cache.put(KINDS[body["kind"]], self.api.put(body))

    def world(self) -> World:
        world = observe(self.cache, TINY, (), ())
        assert world is not None
        return world

    async def do(self, **plan: Any) -> None:
        await self.apply(TINY, self.world(), Plan(**plan))

    @property
    def verbs(self) -> list[str]:
        return [f"{write.verb} {write.kind}" for write in self.api.writes]


def table(epoch: int, *named: Version) -> Table:
    stable, candidate = ([*named, None, None])[:2]
    row = ExpertRow("tiny-e0", "e0", Role.ROUTED, (0,), stable=stable, candidate=candidate)
    return Table("tiny", "", epoch, 64, 2, "Float32", "", Failover(), (), (row,))


def deployment(hash_: str = "h1", digest: str = "bbbbbbbbbb") -> Manifest:
    labels = {"moeops.dev/expert": "tiny-e0", "moeops.dev/digest": digest}
    body = labelled("Deployment", f"tiny-e0-{digest}", labels=labels, api="apps/v1", spec={"x": 1})
    return Manifest(body, hash_)


def evaluator(name: str = "tiny-e0-eval-2-7777777777-1") -> Manifest:
    owner = {"kind": "Expert", "name": "tiny-e0", "uid": "uid-2"}
    labels = {"moeops.dev/component": "evaluator", "moeops.dev/expert": "tiny-e0"}
    body = labelled("Pod", name, labels=labels, spec={"containers": []})
    body["metadata"]["ownerReferences"] = [owner]
    return Manifest(body, "h")


async def test_an_evaluator_is_made_once_and_seen_by_the_next_plan() -> None:
    bench = Bench()
    await bench.do(pods=(evaluator(),))
    await bench.do(pods=(evaluator(),))
    assert bench.verbs == ["create Pod"]
    (pod,) = bench.world().pods
    assert (pod.component, pod.expert, pod.over) == ("evaluator", "tiny-e0", False)


async def test_an_evaluator_that_is_not_seen_yet_is_no_second_one() -> None:
    bench = Bench()
    bench.api.put(evaluator().body)
    with pytest.raises(Conflict):
        await bench.do(pods=(evaluator(),))
    assert bench.verbs == []


async def test_a_refused_evaluator_holds_up_nothing_else_and_is_told() -> None:
    bench = Bench()
    bench.api.refuse.append(("create", "Pod", Refused("exceeded quota: pods")))
    status = Status("Expert", "tiny-e0", {"version": "v1"})
    with pytest.raises(Refused):
        await bench.do(pods=(evaluator(),), statuses=(status,), manifests=(deployment(),))
    assert bench.verbs == ["apply Deployment", "merge status Expert"]
    event = bench.notes._waiting.get_nowait()
    assert (event["reason"], event["message"]) == ("EvaluatorRefused", "exceeded quota: pods")


async def test_a_plan_is_carried_out_in_order_and_once() -> None:
    bench = Bench()
    plan: dict[str, Any] = {
        "revisions": (Revision("tiny-e0", 1, V1, {"spec": {}}),),
        "locks": (Status("Expert", "tiny-e0", {"inUse": True}),),
        "table": table(1, V1),
        "manifests": (deployment(),),
        "statuses": (Status("Expert", "tiny-e0", {"inUse": True, "version": "v1"}),),
    }
    await bench.do(**plan)
    assert bench.verbs == [
        "create ControllerRevision",
        "merge status Expert",
        "create RoutingTable",
        "apply Deployment",
        "merge status Expert",
    ]
    await bench.do(**{**plan, "table": None, "manifests": ()})
    assert len(bench.verbs) == 5
    world = bench.world()
    assert world.table is not None
    assert world.table.table.epoch == 1
    assert world.applied["Deployment", "tiny-e0-bbbbbbbbbb"] == "h1"


async def test_the_table_is_swapped_only_if_it_is_still_the_one_that_was_seen() -> None:
    bench = Bench()
    await bench.do(table=table(1, V1))
    old = bench.world()
    await bench.do(table=table(2, V1, V2))
    with pytest.raises(Conflict):
        await bench.apply(TINY, old, Plan(table=table(2, V2), manifests=(deployment(),)))
    assert bench.verbs == ["create RoutingTable", "replace RoutingTable"]
    stored = bench.api.objects[ROUTING_TABLE, "default", "tiny"]
    assert stored["spec"]["experts"][0]["stable"]["version"] == "v1"


async def test_a_table_made_meanwhile_is_a_conflict_and_the_rest_waits() -> None:
    bench = Bench()
    other = Bench()
    other.api = bench.api
    await bench.do(table=table(1, V1))
    fresh = Bench().world()
    with pytest.raises(Conflict):
        await bench.apply(TINY, fresh, Plan(table=table(1, V2), manifests=(deployment(),)))
    assert "apply Deployment" not in bench.verbs


async def test_a_child_that_was_seen_is_fenced() -> None:
    bench = Bench()
    await bench.do(manifests=(deployment("h1"),))
    assert "resourceVersion" not in bench.api.writes[-1].body["metadata"]
    await bench.do(manifests=(deployment("h2"),))
    second = bench.api.writes[-1].body["metadata"]
    assert second["uid"]
    assert second["resourceVersion"]
    # Somebody else changed it, and the cache has not seen that yet.
    bench.api.put({**labelled("Deployment", "tiny-e0-bbbbbbbbbb", api="apps/v1"), "spec": {"x": 2}})
    with pytest.raises(Conflict):
        await bench.do(manifests=(deployment("h3"),))


async def test_a_deletion_needs_the_object_that_was_seen() -> None:
    bench = Bench()
    await bench.do(manifests=(deployment(),))
    seen = metadata(bench.api.objects[DEPLOYMENT, "default", "tiny-e0-bbbbbbbbbb"])
    name, uid, version = "tiny-e0-bbbbbbbbbb", seen["uid"], seen["resourceVersion"]
    with pytest.raises(Conflict):
        await bench.do(deletes=(Delete("Deployment", name, uid, "1"),))
    with pytest.raises(Conflict):
        await bench.do(deletes=(Delete("Deployment", name, "another", version),))
    await bench.do(deletes=(Delete("Deployment", name, uid, version),))
    await bench.do(deletes=(Delete("Deployment", name, uid, version),))  # gone already: no error
    assert bench.world().deployments == ()


async def test_pods_of_a_version_that_is_named_again_are_stamped_before_the_table() -> None:
    """A deletion that a sleeping leader decided on then finds another resourceVersion."""
    bench = Bench()
    await bench.do(table=table(1, V1), manifests=(deployment(),))
    slept = metadata(bench.api.objects[DEPLOYMENT, "default", "tiny-e0-bbbbbbbbbb"])
    await bench.do(table=table(2, V1, V2))
    assert bench.verbs[-2:] == ["merge Deployment", "replace RoutingTable"]
    (seen,) = bench.world().deployments
    assert seen.stamped_epoch == 2
    delete = Delete("Deployment", seen.name, slept["uid"], slept["resourceVersion"])
    with pytest.raises(Conflict):
        await bench.do(deletes=(delete,))
    await bench.do(table=table(3, V2))  # named before: no stamp
    assert bench.verbs[-1] == "replace RoutingTable"
    assert bench.verbs.count("merge Deployment") == 1


async def test_pods_that_start_meanwhile_are_in_no_stamps_way() -> None:
    bench = Bench()
    await bench.do(table=table(1, V1), manifests=(deployment(),))
    world = bench.world()
    status = {"status": {"readyReplicas": 1}}
    await bench.api.merge(DEPLOYMENT, "default", "tiny-e0-bbbbbbbbbb", status, "status")
    await bench.apply(TINY, world, Plan(table=table(2, V1, V2)))
    assert bench.verbs[-2:] == ["merge Deployment", "replace RoutingTable"]
    (seen,) = bench.world().deployments
    assert (seen.stamped_epoch, seen.ready_replicas) == (2, 1)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"spec": {"replicas": 7}}, id="another size"),
        pytest.param({"metadata": {"annotations": {"moeops.dev/epoch": "5"}}}, id="another stamp"),
    ],
)
async def test_a_stamp_meets_a_conflict_where_more_than_a_status_has_changed(
    change: dict[str, Any],
) -> None:
    bench = Bench()
    await bench.do(table=table(1, V1), manifests=(deployment(),))
    world = bench.world()
    await bench.api.merge(DEPLOYMENT, "default", "tiny-e0-bbbbbbbbbb", change)
    with pytest.raises(Conflict):
        await bench.apply(TINY, world, Plan(table=table(2, V1, V2)))
    assert bench.verbs[-1] == "merge Deployment"  # the other one's


async def test_a_lock_needs_the_object_that_was_seen() -> None:
    bench = Bench()
    bench.api.put({**expert("e0"), "status": {"phase": "other"}})
    with pytest.raises(Conflict):
        await bench.do(locks=(Status("Expert", "tiny-e0", {"inUse": True}),), table=table(1, V1))
    assert bench.verbs == []


async def test_an_error_of_one_child_lets_the_others_be_written() -> None:
    bench = Bench()
    bench.api.refuse.append(("apply", "Deployment", Unavailable("overloaded", 3.0)))
    with pytest.raises(Unavailable):
        await bench.do(manifests=(deployment(), deployment(digest="cccccccccc")))
    assert bench.verbs == ["apply Deployment"]
    assert [seen.digest for seen in bench.world().deployments] == ["cccccccccc"]


async def test_status_of_an_object_that_went_is_not_an_error() -> None:
    bench = Bench()
    bench.api.remove(KINDS["Expert"], "default", "tiny-e0")
    await bench.do(statuses=(Status("Expert", "tiny-e0", {"phase": "Serving"}),))
    await bench.do(statuses=(Status("Expert", "unknown", {"phase": "Serving"}),))
    assert bench.verbs == []


@pytest.mark.parametrize("changed", ["RoutingTable", "Expert"])
async def test_what_lapses_for_good_is_said_by_no_old_view(changed: str) -> None:
    bench = Bench()
    bench.see(override("again", "tiny-e0", "Retry", revision=2))
    await bench.do(table=table(1, V1))
    old, plan = bench.world(), Plan(statuses=(Status("Override", "again", {"state": "Lapsed"}),))
    if changed == "Expert":
        bench.api.put(expert("e0", sha("b"), "v2"))
    else:
        body = bench.api.objects[ROUTING_TABLE, "default", "tiny"]
        bench.api.put({**body, "spec": {**body["spec"], "epoch": 2}})
    verbs = bench.verbs
    with pytest.raises(Conflict, match=f"{changed} tiny.* is not as it was seen"):
        await bench.apply(TINY, old, plan)
    assert bench.verbs == verbs
    await bench.apply(TINY, bench.world(), plan)
    assert bench.verbs == [*verbs, "merge status Override"]


@pytest.mark.parametrize(
    ("old", "new", "patch"),
    [
        pytest.param({"a": 1}, {"a": 1}, {}, id="equal"),
        pytest.param({"a": 1, "b": 2}, {"a": 1}, {"b": None}, id="a field goes"),
        pytest.param({}, {"a": None}, {"a": None}, id="a null is told"),
        pytest.param(
            {"a": {"x": 1, "y": 2}}, {"a": {"x": 3}}, {"a": {"x": 3, "y": None}}, id="inner"
        ),
        pytest.param({"a": [1, 2]}, {"a": [2]}, {"a": [2]}, id="lists are replaced"),
        pytest.param({"a": {"x": 1}}, {"a": 2}, {"a": 2}, id="another type"),
    ],
)
def test_difference_is_the_smallest_merge_patch(
    old: dict[str, Any], new: dict[str, Any], patch: dict[str, Any]
) -> None:
    assert difference(old, new) == patch


async def test_a_note_is_told_once_until_it_is_news_again() -> None:
    bench = Bench()
    note = Note("Expert", "tiny-e0", True, "RolledBack", "3 of 10 rows were not finite")
    await bench.do(notes=(note, note, replace(note, name="unknown")))
    bench.now += timedelta(minutes=1)
    await bench.do(notes=(note, replace(note, message="another")))
    bench.now += timedelta(minutes=11)
    await bench.do(notes=(note,))
    told = [bench.notes._waiting.get_nowait() for _ in range(bench.notes._waiting.qsize())]
    assert [event["message"] for event in told] == [note.message, "another", note.message]
    assert told[0]["type"] == "Warning"
    assert told[0]["involvedObject"]["uid"]


async def test_a_child_that_is_refused_keeps_nothing_else_from_being_done() -> None:
    bench = Bench()
    bench.api.refuse.append(("apply", "Deployment", Refused("replicas: Invalid value")))
    plan: dict[str, Any] = {
        "manifests": (deployment("one", "1"), deployment("two", "2")),
        "statuses": (Status("Mixture", "tiny", {"phase": "Pending"}),),
    }
    with pytest.raises(Refused, match="Invalid value"):
        await bench.do(**plan)
    assert list(bench.apply.refused[TINY].values()) == ["replicas: Invalid value"]
    assert bench.verbs[-2:] == ["apply Deployment", "merge status Mixture"]
    await bench.do(**plan)
    assert bench.apply.refused[TINY] == {}
