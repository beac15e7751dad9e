"""What the operator makes of a load: where the number is kept, what holds it, who is told."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from moe_core.policy import Policy
from moe_core.rollout import Outcome, Rollout, Version, WeightSince
from moe_core.rows import ExpertRow, GateRow, GateVariant, Role
from moe_core.worker_load import Load, Sample, WorkerLoad
from moe_operator.cache import Key
from moe_operator.router_report import RouterReport
from moe_operator.scalers import Scalers
from moe_operator.scaling import History, Peak, Size
from moe_operator.seen import Seen
from moe_operator.sizing import known_to_trials, sized, told
from moe_operator.spec import ExpertSpec
from moe_operator.world import DeploymentSeen, PodSeen
from tests.operator.engine.bodies import expert, sha

TINY = Key("default", "tiny")
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
LONG_AGO = "2026-01-01T11:00:00Z"
TARGET = {"maxReplicas": 6, "targetUtilizationPercent": 50}
SPEC = ExpertSpec.from_body(expert("e0", replicas=2, autoscaling=TARGET))
V1, V2 = Version("v1", sha("a"), "u"), Version("v2", sha("b"), "u")
ROW = ExpertRow("tiny-e0", "e0", Role.ROUTED, (0, 1), stable=V1)


def there(**replicas: int) -> Seen:
    """Return the Deployments of versions, by the letter of their digest."""
    return Seen(
        deployments=[
            DeploymentSeen(f"d{d}", "u", "1", "worker", "tiny-e0", sha(d)[:10], n, n, "", 0)
            for d, n in replicas.items()
        ]
    )


def bore(busy: float, peak: int) -> History:
    """Return a history that asks for twice the busy workers, or lets go to a peak."""
    load = Load(busy, busy, 6, 0, 0, 0)
    hour = timedelta(hours=1)
    return History((Sample(NOW, {}, 0),), (Peak(NOW, peak),), 0, NOW - hour, load, load)


NO_ROOM = "Unschedulable: 0/2 nodes are available: 2 Insufficient nvidia.com/gpu."
POD = PodSeen(
    name="p",
    uid="u",
    component="worker",
    expert="tiny-e0",
    digest=sha("a")[:10],
    node="",
    address="",
    ready=False,
    deleting=False,
    problem="",
    resource_version="1",
    created=NOW,
    over=False,
    node_selector={},
)
QUIET, BUSY = bore(0.1, 1), bore(2.0, 4)


def rollout(outcome: Outcome, began: str) -> Rollout:
    return Rollout(2, V2, 1, began, outcome, "", "s", (WeightSince(1, 5),))


def replicas(row: ExpertRow, seen: Seen, history: History, *, tried: bool = False) -> int:
    return sized(SPEC, row, seen, history, tried, NOW)[0].replicas


def test_the_number_is_that_of_stables_deployment_and_not_of_the_spec() -> None:
    assert replicas(ROW, there(a=4), History()) == 4
    assert replicas(ROW, there(a=9), History()) == 6
    assert replicas(ROW, there(), History()) == 2
    assert replicas(ROW, there(a=0), History()) == 2  # it slept
    assert replicas(replace(ROW, stable=None), there(a=3), History()) == 3


def test_a_version_that_was_promoted_early_gets_as_many_as_it_replaced() -> None:
    row = replace(ROW, stable=V2, previous=V1)
    assert replicas(row, there(a=4, b=1), History()) == 4


def test_a_load_raises_and_lowers_them_and_says_why() -> None:
    raised, size = sized(SPEC, ROW, there(a=2), BUSY, False, NOW)
    assert raised.replicas == 4
    assert size is not None
    assert size.why.startswith("2 → 4: 6.0 workers busy 33%")
    assert replicas(ROW, there(a=3), QUIET) == 1


def test_where_some_find_no_node_no_more_are_asked_for_and_fewer_may_be() -> None:
    seen = there(a=3)
    seen.pods.append(replace(POD, problem=NO_ROOM))
    held, size = sized(SPEC, ROW, seen, BUSY, False, NOW)
    assert held.replicas == 3
    assert size is not None
    assert (size.why, size.full) == ("", NO_ROOM)
    status = told(SPEC.meta, size, NOW)
    assert status["full"] == NO_ROOM
    later = told(replace(SPEC.meta, status={"autoscaling": status}), replace(size, full=""), NOW)
    assert later == {key: value for key, value in status.items() if key != "full"}
    assert replicas(ROW, seen, QUIET) == 1


UNDER_WAY = replace(ROW, candidate=V2, rollout=rollout(Outcome.PROGRESSING, LONG_AGO))
TAKEN_BACK = replace(ROW, rollout=rollout(Outcome.ROLLED_BACK, "2026-01-01T11:59:50Z"))
WARM = replace(
    ROW, stable=V2, previous=V1, rollout=rollout(Outcome.PROMOTED, "2026-01-01T11:00:00Z")
)


@pytest.mark.parametrize(
    ("row", "tried"),
    [
        pytest.param(UNDER_WAY, False, id="a version is on trial"),
        pytest.param(TAKEN_BACK, False, id="its loser is still warm"),
        pytest.param(WARM, False, id="sessions still use what it replaced"),
        pytest.param(ROW, True, id="a gate that knows it is on trial"),
    ],
)
def test_they_are_never_lowered_against_a_rollout(row: ExpertRow, tried: bool) -> None:
    assert replicas(row, there(a=3, b=1), QUIET, tried=tried) == 3
    assert replicas(row, there(a=3, b=1), BUSY, tried=tried) == 4


def test_when_all_is_cold_they_may_go() -> None:
    over = replace(ROW, rollout=rollout(Outcome.ROLLED_BACK, LONG_AGO))
    assert replicas(over, there(a=3), QUIET) == 1


def test_a_gate_holds_the_experts_of_all_its_variants_until_its_loser_has_gone() -> None:
    old = GateVariant("g1", sha("8"), "u", ("e0", "e1"), Policy(1))
    new = GateVariant("g2", sha("9"), "u", ("e1", "e2"), Policy(1))
    trial = Rollout(2, new, 0, LONG_AGO, Outcome.PROGRESSING, "", "s")
    tried = GateRow("gate", (0,), old, candidate=new, rollout=trial)
    assert known_to_trials([tried]) == {"e0", "e1", "e2"}
    over = replace(trial, outcome=Outcome.PROMOTED)
    assert known_to_trials([GateRow("gate", (0,), new, previous=old, rollout=over)]) == {
        "e0",
        "e1",
        "e2",
    }
    assert known_to_trials([GateRow("gate", (0,), new, rollout=over)]) == frozenset()


def test_an_expert_without_autoscaling_is_as_its_spec_says() -> None:
    plain = ExpertSpec.from_body(expert("e0", replicas=2))
    assert sized(plain, ROW, there(a=5), BUSY, False, NOW) == (plain, None)


def test_status_changes_only_with_the_number() -> None:
    _, size = sized(SPEC, ROW, there(a=2), BUSY, False, NOW)
    assert size is not None
    said = told(SPEC.meta, size, NOW)
    assert (said["replicas"], said["since"]) == (4, "2026-01-01T12:00:00.000Z")
    assert said["message"] == size.why
    meta = replace(SPEC.meta, status={"autoscaling": said})
    _, followed = sized(SPEC, ROW, there(a=4), BUSY, False, NOW)
    assert followed is not None
    later = NOW + timedelta(hours=1)
    assert told(meta, followed, later) == said
    assert told(SPEC.meta, followed, later)["message"] == (
        "of 1 to 6; the load asked for no other number yet"
    )


def heard(second: float, busy_s: float) -> RouterReport:
    loads = {"w0": WorkerLoad("i", busy_us=int(1e6 * busy_s))}
    return RouterReport("r", "i", NOW + timedelta(seconds=second), "t", 1, (), {}, {}, loads=loads)


def test_scalers_tell_when_a_load_asks_for_something_else() -> None:
    scalers, spec = Scalers(), SPEC.autoscaling
    assert spec is not None

    def hear(second: float, busy_s: float) -> bool:
        return scalers.hear(TINY, [heard(second, busy_s)], NOW + timedelta(seconds=second))

    assert not hear(0, 0)  # nobody follows it
    size = Size(spec, 1, 1, frozenset({"w0"}))
    scalers.follow(TINY, {"tiny-e0": size})
    assert not any(hear(second, second) for second in range(1, 10))
    assert hear(11, 11)
    assert len(scalers.histories(TINY)["tiny-e0"].samples) == 10
    scalers.follow(TINY, {"tiny-e0": replace(size, replicas=2)})
    assert not hear(12, 12)
    scalers.follow(TINY, {})
    assert scalers.histories(TINY) == {}


def test_what_a_router_said_long_ago_is_not_heard() -> None:
    scalers, spec = Scalers(), SPEC.autoscaling
    assert spec is not None
    scalers.follow(TINY, {"tiny-e0": Size(spec, 1, 1, frozenset({"w0"}))})
    scalers.hear(TINY, [heard(0, 0)], NOW + timedelta(seconds=6))
    assert scalers.histories(TINY) == {}
