"""Reports: whom to ask, what is kept, and when a look is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import pytest

from moe_core.rollout import Outcome, Rollout, Version, WeightSince
from moe_core.rows import ExpertRow, Role
from moe_core.table import Failover, Table
from moe_core.worker_load import WorkerLoad
from moe_operator.asking import router_report, worker_reports
from moe_operator.cache import Key
from moe_operator.pace import targets
from moe_operator.reports import Reports, Targets, Unanswered
from moe_operator.router_report import Counters, Measure, OutcomeSum, RouterReport
from moe_operator.sequential import Arm
from moe_operator.spec import ExpertSpec
from moe_operator.world import PodSeen, StoredTable, WorkerReport, World
from moeops.v1 import router_pb2, types_pb2, worker_pb2
from tests.operator.engine.bodies import expert, sha

TINY = Key("default", "tiny")
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def said(epoch: int = 1, **workers: tuple[str, ...]) -> RouterReport:
    offers = {sha(letter): names for letter, names in workers.items()}
    return RouterReport("", "i", NOW, "t", epoch, (), offers, {})


@dataclass(slots=True)
class Programs:
    """Answers by address; an address without one does not answer."""

    routers: dict[str, RouterReport] = field(default_factory=dict)
    workers: dict[str, tuple[WorkerReport, ...]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    open: frozenset[str] = frozenset()
    silent: str = ""  # an address that neither answers nor fails

    async def router(
        self, address: str, digests: tuple[str, ...], watched: tuple[str, ...]
    ) -> RouterReport:
        self.asked.append(address)
        if address == self.silent:
            await asyncio.Event().wait()
        if address not in self.routers:
            raise Unanswered(address)
        return self.routers[address]

    async def worker(self, address: str) -> tuple[WorkerReport, ...]:
        self.asked.append(address)
        if address not in self.workers:
            raise Unanswered(address)
        return self.workers[address]

    async def forget(self, addresses: frozenset[str]) -> None:
        self.open = addresses


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_news_asks_for_a_look_and_the_same_again_does_not() -> None:
    programs, told = Programs(routers={"10.0.0.1:7000": said(1)}), list[Key]()
    reports = Reports(programs, told.append, lambda: NOW)
    target = Targets({"r0": "10.0.0.1:7000", "r1": "10.0.0.2:7000"}, every_s=60)
    reports.follow(TINY, target)
    await settle()
    assert told == [TINY]
    assert [report.pod for report in reports.routers(TINY)] == ["r0"]
    assert programs.open == target.addresses
    reports.follow(TINY, replace(target, every_s=50))  # asked again at once, nothing new
    await settle()
    assert programs.asked.count("10.0.0.1:7000") == 2
    assert told == [TINY]
    programs.routers["10.0.0.1:7000"] = said(2)
    reports.follow(TINY, replace(target, every_s=40))
    await settle()
    assert told == [TINY, TINY]
    await reports.close()
    assert programs.open == frozenset()


async def test_loads_are_no_news_until_something_follows_from_them() -> None:
    programs, told, heard = Programs(), list[Key](), list[int]()

    def hear(key: Key, said: Iterable[RouterReport], now: datetime) -> bool:
        heard.extend(report.loads["w0"].busy_us for report in said)
        return heard[-1] == 3

    reports = Reports(programs, told.append, lambda: NOW, hear)
    for busy_us, every_s in ((1, 60), (2, 50), (3, 40)):
        loads = {"w0": WorkerLoad("p", busy_us=busy_us)}
        programs.routers["a"] = replace(said(1), loads=loads)
        reports.follow(TINY, Targets({"r0": "a"}, every_s=every_s))
        await settle()
        assert len(told) == 1 + (busy_us == 3)  # the first report is news in any case
    assert heard == [1, 2, 3]
    await reports.close()


async def test_a_router_that_is_silent_keeps_its_last_report_until_its_pod_is_gone() -> None:
    programs = Programs(routers={"a": said(1)})
    reports = Reports(programs, lambda key: None, lambda: NOW)
    reports.follow(TINY, Targets({"r0": "a"}, every_s=60))
    await settle()
    del programs.routers["a"]
    reports.follow(TINY, Targets({"r0": "a"}, every_s=50))
    await settle()
    assert [report.epoch for report in reports.routers(TINY)] == [1]
    reports.follow(TINY, Targets({}, every_s=60))
    assert reports.routers(TINY) == ()
    await reports.close()


async def test_that_a_router_had_a_table_is_remembered_until_its_pod_is_gone() -> None:
    none = replace(said(0), table_uid="")
    programs = Programs(routers={"a": none})
    reports = Reports(programs, lambda key: None, lambda: NOW)
    found = []
    for number, report in enumerate((none, said(1), none, none)):
        programs.routers["a"] = report
        reports.follow(TINY, Targets({"r0": "a"}, every_s=60 + number))
        await settle()
        found += [one.may_route for one in reports.routers(TINY)]
    assert found == [False, True, True, True]
    reports.follow(TINY, Targets({"r1": "a"}, every_s=70))
    await settle()
    assert [one.may_route for one in reports.routers(TINY)] == [False]
    await reports.close()


async def test_what_one_says_counts_before_another_has_answered() -> None:
    programs, told = Programs(routers={"a": said(1)}), list[Key]()
    programs.silent = "b"
    reports = Reports(programs, told.append, lambda: NOW)
    reports.follow(TINY, Targets({"r0": "a", "r1": "b"}, every_s=60))
    await settle()
    assert told == [TINY]
    assert [report.pod for report in reports.routers(TINY)] == ["r0"]
    await reports.close()


async def test_a_program_that_is_no_longer_asked_leaves_no_report(
    caplog: pytest.LogCaptureFixture,
) -> None:
    programs, told = Programs(routers={"a": said(1), "b": said(2)}), list[Key]()
    reports = Reports(programs, told.append, lambda: NOW)
    reports.follow(TINY, Targets({"r0": "a"}, {"w0": "w:7101"}, every_s=60))
    await asyncio.sleep(0)  # its questions are on their way
    reports.follow(TINY, Targets({"r1": "b"}, every_s=60))
    await settle()
    assert [report.pod for report in reports.routers(TINY)] == ["r1"]
    assert caplog.records == []
    await reports.close()


async def test_workers_that_do_not_serve_say_how_far_they_are() -> None:
    refused = WorkerReport("", sha("b"), "Refused", "wrong digest")
    programs, told = Programs(workers={"w:7101": (refused,)}), list[Key]()
    reports = Reports(programs, told.append, lambda: NOW)
    reports.follow(TINY, Targets({}, {"w0": "w:7101"}, every_s=60))
    await settle()
    assert reports.workers(TINY) == (replace(refused, pod="w0"),)
    assert told == [TINY]
    await reports.leave(TINY)
    assert reports.workers(TINY) == ()


def pod(
    name: str, component: str, *, ready: bool, digest: str = "", ip: str = "10.0.0.1"
) -> PodSeen:
    fields = (name, "u", component, "tiny-e0", digest, "n", ip, ready, False, "")
    return PodSeen(*fields, resource_version="1", created=NOW, over=False, node_selector={})


def world(table: Table | None, pods: tuple[PodSeen, ...], *routers: RouterReport) -> World:
    stored = None if table is None else StoredTable(table, "1")
    return World("default", "tiny", None, stored, (), (), (), (), (), pods, routers, ())


def table(epoch: int = 1, outcome: Outcome | None = None) -> Table:
    stable, target = Version("v1", sha("a"), "u"), Version("v2", sha("b"), "u")
    rollout = None
    if outcome is not None:
        began = "2026-01-01T00:00:00Z"
        rollout = Rollout(2, target, 1, began, outcome, "", "s", (WeightSince(1, 5),))
    row = ExpertRow("tiny-e0", "e0", Role.ROUTED, (0,), stable=stable, rollout=rollout)
    return Table("tiny", "t", epoch, 64, 1, "Float32", "", Failover(), (), (row,))


ROUTER = pod("r0", "router", ready=True)
WORKER = pod("w0", "worker", ready=True, digest="aaaaaaaaaa")
LINKED = replace(said(1, a=("w0",)), pod="r0")
SCALED = ExpertSpec.from_body(
    expert("e0", autoscaling={"maxReplicas": 2, "targetUtilizationPercent": 60})
)
ELSEWHERE = replace(LINKED, table_uid="old")


@pytest.mark.parametrize(
    ("seen", "every_s"),
    [
        pytest.param(world(table(), (ROUTER, WORKER), LINKED), 10.0, id="all is well"),
        pytest.param(world(None, ()), 10.0, id="nothing there yet"),
        pytest.param(world(table(2), (ROUTER, WORKER), LINKED), 0.25, id="an epoch to come"),
        pytest.param(world(table(), (ROUTER, WORKER)), 0.25, id="no report yet"),
        pytest.param(
            world(table(), (ROUTER, WORKER), replace(LINKED, table_uid="old")),
            0.25,
            id="another table",
        ),
        pytest.param(
            world(table(), (ROUTER, WORKER), replace(LINKED, workers={})), 0.25, id="a link to come"
        ),
        pytest.param(
            world(table(1, Outcome.PROGRESSING), (ROUTER, WORKER), LINKED), 1.0, id="a rollout"
        ),
        pytest.param(
            world(table(), (ROUTER, replace(WORKER, ready=False)), LINKED), 1.0, id="a pod starts"
        ),
        pytest.param(
            replace(world(table(), (ROUTER, WORKER), LINKED), experts=(SCALED,)),
            2.0,
            id="replicas that follow a load",
        ),
        pytest.param(
            world(table(), (ROUTER, WORKER, pod("x", "evaluator", ready=False)), LINKED),
            10.0,
            id="an evaluator is never ready",
        ),
    ],
)
def test_the_pace_follows_what_is_waited_for(seen: World, every_s: float) -> None:
    found = targets(seen, None if seen.table is None else seen.table.table)
    assert found.every_s == every_s


def test_routers_and_workers_that_do_not_serve_are_asked() -> None:
    starting = replace(WORKER, name="w1", ready=False, address="10.0.0.3")
    unplaced = replace(WORKER, name="w2", ready=False, address="")
    leaving = replace(ROUTER, name="r1", deleting=True)
    found = targets(world(table(), (ROUTER, WORKER, starting, unplaced, leaving), LINKED), table())
    assert found.routers == {"r0": "10.0.0.1:7000"}
    assert found.workers == {"w1": "10.0.0.3:7101"}


def test_a_routers_description_becomes_a_report() -> None:
    link = router_pb2.LinkState
    answer = router_pb2.DescribeResponse(
        router="r0",
        incarnation="i7",
        table_uid="t",
        epoch=4,
        latency_bounds_us=[100, 1000],
        links=[
            link(
                worker="w1",
                state=link.LIVE,
                sha256=[sha("a"), sha("b")],
                incarnation="p1",
                rows=9,
                queued_rows=1,
                busy_us=2,
                computed_rows=3,
                queued_attempts=4,
                queue_us=5,
            ),
            link(worker="w0", state=link.LIVE, sha256=[sha("a")]),
            link(worker="w2", state=link.SILENT, sha256=[sha("a")]),
            link(worker="w3", state=link.DRAINING, sha256=[sha("a")]),
        ],
        versions=[
            router_pb2.VersionCounters(
                expert_id=expert_id,
                sha256=sha("a"),
                requests=3,
                rows=30,
                errors={"Broken": 1, "NonFinite": 2},
                nonfinite_rows=2,
                norm_sum=1.5,
                latency_counts=[1, 2, 0],
                shadow_requests=2,
                shadow_rows=4,
                shadow_errors=1,
                shadow_nonfinite_rows=3,
                shadow_norm_sum=2.5,
                session_pairs=9,
                overflow_pairs=4,
                overflow_sessions=5,
            )
            for expert_id in ("e0", "e1")
        ],
        outcomes=[
            router_pb2.OutcomeSums(
                expert_id="e0",
                sha256=sha(letter),
                since_epoch=3,
                measure=measure,
                sessions=2,
                w=10,
                x=20,
                ww=52,
                xx=202,
                wx=101,
            )
            for letter in "ac"
            for measure in (router_pb2.OutcomeSums.LOSS, router_pb2.OutcomeSums.SCORE)
        ],
    )
    report = router_report(answer, (sha("a"),))
    assert (report.incarnation, report.table_uid, report.epoch) == ("i7", "t", 4)
    assert report.workers == {sha("a"): ("w0", "w1"), sha("b"): ("w1",)}
    assert report.silent == {sha("a")}
    assert report.loads == {
        "w1": WorkerLoad("p1", queued_rows=1, busy_us=2, rows=3, queued_attempts=4, queue_us=5),
        "w0": WorkerLoad(""),
        "w3": WorkerLoad(""),
    }
    counters = report.versions[sha("a")]
    assert (counters.requests, counters.rows, counters.errors) == (6, 60, 6)
    assert (counters.nonfinite_rows, counters.norm_sum) == (4, 3.0)
    assert counters.latency_counts == (2, 4, 0)
    assert (counters.shadow_requests, counters.shadow_rows, counters.shadow_errors) == (4, 8, 2)
    assert (counters.shadow_nonfinite_rows, counters.shadow_norm_sum) == (6, 5.0)
    assert (counters.session_pairs, counters.overflow_pairs) == (18, 8)
    assert counters.overflow_sessions == 10
    arm = Arm(2, 10.0, 20.0, 52.0, 202.0, 101.0)
    assert report.outcomes == tuple(
        OutcomeSum("e0", sha("a"), 3, measure, arm) for measure in (Measure.LOSS, Measure.SCORE)
    )
    assert router_report(answer, ()).versions == {}
    assert router_report(answer, (sha("f"),)).versions == {sha("f"): Counters()}
    watched = router_report(answer, (), (sha("a"),))
    assert (watched.attended, watched.versions) == ({sha("a"): counters}, {})
    assert watched == router_report(answer, ())  # what is watched is no news by itself


def test_a_workers_description_becomes_reports() -> None:
    state = worker_pb2.AssignedState
    answer = worker_pb2.DescribeWorkerResponse(
        assigned=[
            state(expert=worker_pb2.AssignedExpert(sha256=sha("a")), phase=state.SERVING),
            state(
                expert=worker_pb2.AssignedExpert(sha256=sha("b")),
                phase=state.REFUSED,
                failure=types_pb2.Failure(message="its digest is another"),
            ),
        ]
    )
    assert worker_reports(answer) == (
        WorkerReport("", sha("a"), "Serving", ""),
        WorkerReport("", sha("b"), "Refused", "its digest is another"),
    )
