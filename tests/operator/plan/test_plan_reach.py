"""What can be said of routers from their reports: epochs taken, links, and what is not known."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from moe_operator.reach import Reach
from moe_operator.router_report import RouterReport
from tests.operator.plan.looks import condition, stable, started
from tests.operator.plan.simulation import START

A, B = "a" * 64, "b" * 64


def report(
    pod: str,
    epoch: int,
    *,
    table: str = "t",
    age_s: int = 0,
    silent: str = "",
    **workers: tuple[str, ...],
) -> RouterReport:
    links = {{"a": A, "b": B}[name]: found for name, found in workers.items()}
    at = START - timedelta(seconds=age_s)
    return RouterReport(
        pod, "i", at, table, epoch, (), links, {}, silent=frozenset({silent} - {""})
    )


def reach(*reports: RouterReport, ready: tuple[str, ...] = ("r1", "r2")) -> Reach:
    bound = tuple(sorted({*ready, *(r.pod for r in reports)}))
    there = frozenset({"w1", "w2"})
    return Reach(ready, bound, {r.pod: r for r in reports}, "t", 7, START, there)


@pytest.mark.parametrize(
    ("seen", "acknowledged"),
    [
        pytest.param(reach(report("r1", 7), report("r2", 8)), True, id="all have it, or newer"),
        pytest.param(reach(report("r1", 7), report("r2", 6)), False, id="one is behind"),
        pytest.param(reach(report("r1", 7)), False, id="one has said nothing"),
        pytest.param(
            reach(report("r1", 7), report("r2", 9, table="old")), False, id="another table's epoch"
        ),
        pytest.param(reach(ready=()), False, id="no router is ready"),
    ],
)
def test_an_epoch_is_acknowledged_by_every_ready_router(seen: Reach, acknowledged: bool) -> None:
    assert seen.acknowledged(7) is acknowledged


def test_a_router_that_is_not_ready_may_still_serve_by_an_old_table() -> None:
    assert not reach(report("r1", 7), report("r2", 6), ready=("r1",)).released(7)
    assert reach(report("r1", 7), ready=("r1",)).released(7)
    assert reach(ready=()).released(7)


@pytest.mark.parametrize(
    ("seen", "workers", "lost"),
    [
        pytest.param(
            reach(report("r1", 7, a=("w1", "w2")), report("r2", 7, a=("w1",))),
            1,
            False,
            id="the router that reaches fewest counts",
        ),
        pytest.param(
            reach(report("r1", 7, a=("w1",)), report("r2", 7)), 0, False, id="one reaches none"
        ),
        pytest.param(
            reach(report("r1", 7, a=("w0", "w1")), report("r2", 7, a=("w0", "w2"))),
            1,
            False,
            id="a link to a pod that has gone since is none",
        ),
        pytest.param(reach(report("r1", 7, b=("w1",)), report("r2", 7)), 0, True, id="lost"),
        pytest.param(
            reach(report("r1", 7, b=("w1",)), report("r2", 7, silent=A)),
            0,
            False,
            id="silent for a moment is not lost",
        ),
        pytest.param(reach(report("r1", 7, a=("w1",))), 0, False, id="one has said nothing"),
        pytest.param(reach(report("r1", 7)), 0, False, id="too little is known to call it lost"),
        pytest.param(
            reach(report("r1", 7, a=("w1",)), report("r2", 7, age_s=31, a=("w1",))),
            0,
            False,
            id="a stale report counts for nothing",
        ),
        pytest.param(reach(ready=()), 0, False, id="no router is ready"),
    ],
)
def test_routable_is_what_every_router_reaches(seen: Reach, workers: int, lost: bool) -> None:
    assert (seen.workers(A), seen.lost(A)) == (workers, lost)


def test_a_router_that_started_without_the_api_server_is_named() -> None:
    sim = started()
    name, router = next(iter(sim.routers.items()))
    router.kept = True
    sim.run(2)
    assert condition(sim, "Mixture", "tiny", "Degraded") == (
        "True",
        "TableKept",
        f"1 of 2 routers started by a copy of the table, as no API server answers them: {name}",
    )
    router.kept = False
    sim.run(2)
    assert condition(sim, "Mixture", "tiny", "Degraded")[0] == "False"


def test_a_table_put_back_from_a_backup_is_written_past_what_routers_have() -> None:
    """They go back to no older epoch, and one number does not stand for two tables."""
    sim = started()
    backup = sim.stored
    sim.want("e0", "v2")
    sim.run(60)
    assert stable(sim) == "v2"
    assert sim.stored is not None
    assert backup is not None
    ahead = sim.stored.table.epoch
    assert ahead > backup.table.epoch

    sim.want("e0", "v1")
    sim.stored = replace(backup, resource_version=sim.stored.resource_version)
    sim.tick()
    assert sim.stored.table.epoch == ahead + 1
    assert stable(sim) == "v1"
    sim.run(5)
    assert {r.table.epoch for r in sim.routers.values() if r.table} == {sim.stored.table.epoch}
    settled = sim.stored
    sim.run(5)
    assert sim.stored is settled, "written once"
