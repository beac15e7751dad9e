"""What the table says, after a rollout has ended, of sessions that began before and after it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from moe_core.pins import bucket, pinned, weight_at
from moe_core.rollout import Outcome
from tests.operator.plan.bodies import override, sha
from tests.operator.plan.looks import deployments, outcome, row, stable, started, until_weight
from tests.operator.plan.simulation import Behaviour, Simulation

SESSIONS = [f"session-{number}" for number in range(200)]


def percents(sim: Simulation) -> list[int]:
    rollout = row(sim).rollout
    assert rollout is not None
    return [weight.percent for weight in rollout.weights]


def epoch(sim: Simulation) -> int:
    assert sim.stored is not None
    return sim.stored.table.epoch


def on_target(sim: Simulation, began: int) -> set[str]:
    """Return the sessions of that epoch that the last rollout gave its target."""
    rollout = row(sim).rollout
    assert rollout is not None
    below = weight_at(rollout.weights, began) * 100
    return {session for session in SESSIONS if bucket(rollout.salt, session) < below}


def set_back(sim: Simulation) -> None:
    sim.want("e0", "v1")


def served_instead(sim: Simulation) -> None:
    sim.put("Override", override("back", "e0", "Serve", version="v1", insteadOf="v2"))


def turned_bad(sim: Simulation) -> None:
    sim.behaviours[sha("e0", "v2")] = Behaviour(nonfinite=True)


@pytest.mark.parametrize(
    ("happens", "ends"),
    [
        pytest.param(set_back, Outcome.ABORTED, id="the spec is set back"),
        pytest.param(served_instead, Outcome.ROLLED_BACK, id="a person serves another"),
        pytest.param(turned_bad, Outcome.ROLLED_BACK, id="evidence is against it"),
    ],
)
def test_sessions_that_begin_after_a_trial_lost_nothing(
    happens: Callable[[Simulation], None], ends: Outcome
) -> None:
    sim = started(rollout={"steps": [{"weightPercent": 25, "pauseSeconds": 60}]})
    sim.want("e0", "v2")
    until_weight(sim, 25)
    trial = epoch(sim)
    had_it = on_target(sim, trial)
    assert 20 < len(had_it) < 80
    happens(sim)
    sim.run(3)
    assert (outcome(sim), percents(sim)) == (ends, [25, 0])
    assert on_target(sim, trial) == had_it
    assert on_target(sim, epoch(sim)) == set()


@pytest.mark.parametrize("happens", [set_back, served_instead], ids=lambda how: how.__name__)
def test_a_promoted_version_that_is_swapped_away_is_lost_by_those_that_had_it(
    happens: Callable[[Simulation], None],
) -> None:
    sim = started(rollout={"scaleDownDelaySeconds": 60})
    sim.want("e0", "v2")
    sim.run(20)
    assert (stable(sim), percents(sim)) == ("v2", [25, 100, 100])
    promoted = epoch(sim)
    happens(sim)
    sim.run(1)
    assert (stable(sim), outcome(sim)) == ("v1", Outcome.ROLLED_BACK)
    assert percents(sim) == [25, 100, 100, 0]
    assert on_target(sim, promoted) == set(SESSIONS)
    assert on_target(sim, epoch(sim)) == set()
    for began in (1, promoted, epoch(sim)):
        served = {pinned(row(sim), session, began) for session in SESSIONS}
        assert [version.version for version in served if version] == ["v1"]


def test_a_version_that_is_served_again_is_that_of_new_sessions() -> None:
    sim = started(rollout={"scaleDownDelaySeconds": 60})
    sim.want("e0", "v2")
    sim.run(20)
    set_back(sim)
    sim.run(1)
    between = epoch(sim)
    sim.put("Override", override("again", "e0", "Serve", version="v2", insteadOf="v1"))
    sim.run(20)
    assert (stable(sim), outcome(sim)) == ("v2", Outcome.PROMOTED)
    assert percents(sim) == [25, 100, 100, 0, 100]
    assert on_target(sim, between) == set()
    assert on_target(sim, epoch(sim)) == set(SESSIONS)


def test_a_rollout_that_never_had_weight_has_none_at_its_end() -> None:
    sim = started()
    sim.behaviours[sha("e0", "v2")] = Behaviour(refused="its digest is another")
    sim.want("e0", "v2")
    sim.run(10)
    assert (outcome(sim), percents(sim)) == (Outcome.ROLLED_BACK, [])


@pytest.mark.parametrize("had_table", [False, True])
def test_a_router_without_a_table_keeps_old_pods_only_if_it_may_still_route_by_one(
    had_table: bool,
) -> None:
    sim = started(rollout={"steps": [{"weightPercent": 25, "pauseSeconds": 60}]})
    sim.want("e0", "v2")
    until_weight(sim, 25)
    blinded = next(name for name in sorted(sim.routers))
    if had_table:
        sim.routers[blinded].blind = True  # its container begins anew, beside its copy of the table
    else:
        sim.blind = True
        del sim.pods[blinded]  # another one comes
    sim.run(5)
    assert any(router.blind and not router.table for router in sim.routers.values())
    sim.behaviours[sha("e0", "v2")] = Behaviour(nonfinite=True)
    sim.run(60)
    assert outcome(sim) is Outcome.ROLLED_BACK
    assert (sha("e0", "v2") in deployments(sim)) is had_table
    for name in [name for name, router in sim.routers.items() if router.blind]:
        sim.routers[name].blind = False
    sim.run(10)
    assert sha("e0", "v2") not in deployments(sim)
