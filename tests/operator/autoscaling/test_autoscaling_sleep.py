"""Experts that no row comes for have no pods; rows, or what is to become of them, wake them."""

from __future__ import annotations

from datetime import UTC, datetime

from moe_core.rows import OnCold
from moe_operator.cache import Key
from moe_operator.pace import targets
from moe_operator.router_report import Counters, RouterReport
from moe_operator.scalers import Scalers
from moe_operator.scaling import History, Size, miss, scale
from moe_operator.spec import ExpertSpec
from tests.operator.autoscaling.loaded import TARGET, Cluster, scaled
from tests.operator.engine.bodies import expert
from tests.operator.engine.bodies import sha as digest
from tests.operator.plan.bodies import gate, override, sha
from tests.operator.plan.looks import condition, deployments, row, stable, until_weight

V1, V2 = sha("e0", "v1"), sha("e0", "v2")
COLD = {**TARGET, "minReplicas": 0}
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def asleep(**spec: object) -> Cluster:
    """Return a mixture that nobody asks, whose e0 sleeps."""
    cluster = scaled(**{"autoscaling": COLD, **spec})
    cluster.traffic = 0
    cluster.busy["e0"] = 0.0
    cluster.run(60)
    assert deployments(cluster) == {V1: 0}
    return cluster


def test_a_cold_expert_has_no_pods_is_ready_all_the_same_and_nothing_more_is_written() -> None:
    cluster = asleep()
    status = cluster.bodies["Expert", "e0"]["status"]
    assert (status["phase"], status["ready"]) == ("Asleep", "0/0")
    assert condition(cluster, "Expert", "e0", "Ready")[:2] == ("True", "Asleep")
    assert condition(cluster, "Mixture", "tiny", "Ready")[0] == "True"
    assert condition(cluster, "Mixture", "tiny", "Degraded")[0] == "False"
    assert status["autoscaling"]["replicas"] == 0
    written = len(cluster.writes)
    cluster.run(60)
    assert cluster.writes[written:] == []


def test_the_next_rows_wake_it_and_it_sleeps_again_after_them() -> None:
    cluster = asleep()
    epoch = cluster.stored.table.epoch if cluster.stored else 0
    cluster.traffic = 10
    cluster.run(6)
    assert deployments(cluster) == {V1: 1}
    assert any(pod.ready for pod in cluster.pods.values() if pod.deployment.startswith("e0-"))
    said = cluster.bodies["Expert", "e0"]["status"]["autoscaling"]["message"]
    assert said == "0 → 1: rows came for it while it slept"
    assert cluster.stored is not None
    assert cluster.stored.table.epoch == epoch, "routers get no other table for it"
    cluster.traffic = 0
    cluster.run(60)
    assert deployments(cluster) == {V1: 0}


def test_a_new_operator_lets_it_sleep_and_still_hears_the_next_rows() -> None:
    cluster = asleep()
    cluster.kill_operator()
    cluster.wipe_status()
    cluster.run(30)
    assert deployments(cluster) == {V1: 0}
    cluster.traffic = 10
    cluster.run(6)
    assert deployments(cluster) == {V1: 1}


def test_a_rollout_wakes_both_versions() -> None:
    cluster = asleep(rollout={"minRequests": 1_000_000})
    cluster.traffic = 10
    cluster.want("e0", "v2")
    until_weight(cluster, 25)
    assert deployments(cluster) == {V1: 1, V2: 1}
    cluster.want("e0", "v1")
    cluster.traffic = 0
    cluster.run(90)
    assert deployments(cluster) == {V1: 0}


def test_a_rollout_that_nobody_asks_is_awake_too() -> None:
    cluster = asleep()
    cluster.want("e0", "v2")
    cluster.run(8)
    assert deployments(cluster) == {V1: 1, V2: 1}


def test_a_way_back_wakes_what_it_goes_back_to() -> None:
    cluster = asleep()
    cluster.traffic = 10
    cluster.want("e0", "v2")
    cluster.run(60)
    assert stable(cluster) == "v2"
    cluster.traffic = 0
    cluster.run(90)
    assert deployments(cluster) == {V2: 0}
    cluster.put("Override", override("back", "e0", "Serve", version="v1", insteadOf="v2"))
    cluster.run(10)
    assert stable(cluster) == "v1"


def test_a_gate_that_comes_wakes_what_it_lists() -> None:
    cluster = asleep()
    cluster.put("Gate", gate(["e1", "e0"], "g2"))
    cluster.run(4)
    assert deployments(cluster) == {V1: 1}
    cluster.run(4)
    assert row(cluster).stable is not None


def test_who_may_not_sleep_keeps_its_pods() -> None:
    cluster = scaled()
    cluster.traffic = 0
    cluster.run(60)
    assert deployments(cluster) == {V1: 1}


# One decision at a time.

SPEC = ExpertSpec.from_body(expert("e0", autoscaling=COLD))
assert SPEC.autoscaling is not None
SLEEPS = Size(SPEC.autoscaling, 0, 0, frozenset(), sleeper=digest("a"))


def report(pod: str, missed: int, incarnation: str = "i") -> RouterReport:
    versions = {digest("a"): Counters(requests=missed)}
    return RouterReport(pod, incarnation, NOW, "t", 1, (), {}, versions)


def heard(*reports: RouterReport) -> bool:
    """Return whether the last of these reports wakes what sleeps."""
    scalers, key = Scalers(), Key("default", "tiny")
    scalers.follow(key, {"tiny-e0": SLEEPS})
    return [scalers.hear(key, [one], NOW) for one in reports][-1]


def test_rows_wake_it_of_which_a_router_tells_more_than_before() -> None:
    assert not heard(report("r1", 7)), "how many there were before it slept says nothing"
    assert not heard(report("r1", 7), report("r1", 7))
    assert not heard(report("r1", 7), report("r2", 9)), "another router counts for itself"
    assert not heard(report("r1", 7), report("r1", 9, "j")), "so does one that began anew"
    assert heard(report("r1", 7), report("r2", 0), report("r1", 8))


def test_what_was_heard_once_is_not_forgotten_before_it_is_awake() -> None:
    woken = miss(miss(History(), {("r", "i"): 1}), {("r", "i"): 2})
    assert miss(woken, {("r", "i"): 2}).wanted
    assert scale(woken, SLEEPS, NOW) == (1, "rows came for it while it slept")
    assert scale(History(), SLEEPS, NOW) == (0, "")


def test_rows_that_wait_wake_it_also_where_nothing_was_heard_before() -> None:
    assert miss(History(), {("r", "i"): 0}, waiting=True).wanted
    assert not miss(History(), {("r", "i"): 0}, waiting=False).wanted


def test_one_row_that_waits_wakes_it_for_an_operator_that_has_just_begun() -> None:
    scalers, key = Scalers(), Key("models", "tiny")
    scalers.follow(key, {"e0": SLEEPS})
    counters = Counters(waiting_rows=1)
    seen = RouterReport("r1", "i", NOW, "t", 1, (), {}, {SLEEPS.sleeper: counters})
    assert scalers.hear(key, [seen], NOW)


def test_the_table_says_whether_rows_wait_for_it_and_only_that_is_a_new_epoch() -> None:
    cluster = asleep()
    assert cluster.stored is not None
    assert row(cluster).on_cold is OnCold.DEGRADE
    epoch = cluster.stored.table.epoch
    cluster.change("e0", autoscaling={**COLD, "onCold": "Wait"})
    cluster.run(20)
    assert row(cluster).on_cold is OnCold.WAIT
    assert cluster.stored.table.epoch == epoch + 1
    assert deployments(cluster) == {V1: 0}, "it sleeps on"
    cluster.change("e0", autoscaling=None)
    cluster.run(3)
    assert row(cluster).on_cold is OnCold.DEGRADE


def test_routers_are_asked_of_what_sleeps_and_at_no_faster_pace() -> None:
    cluster = asleep()
    assert cluster.stored is not None
    asked = targets(cluster.world(), cluster.stored.table)
    assert asked.digests == (V1,)
    assert asked.every_s == 2.0
