"""Watches that are late, forgetful, silent or confused: what comes of it is what would have come.

Every scenario meets every fault; each that loses events is counted to have lost some.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from moe_operator.kinds import DEPLOYMENT
from moe_operator.labels import deployment_name
from tests.operator.engine import wire
from tests.operator.engine.bodies import NAMESPACE, override, sha
from tests.operator.engine.lived import Lived, again
from tests.operator.engine.play import Play
from tests.operator.engine.scenarios import SCENARIOS, Scenario, version
from tests.operator.engine.wire import Fault

FAULTS: Mapping[str, Callable[[], Fault]] = {
    "late": lambda: wire.late(2),
    "twice": lambda: wire.twice,
    "reordered": lambda: wire.reordered(1),
    "reordered otherwise": lambda: wire.reordered(2),
    "deletions lost": lambda: wire.no_deletions,
    "every second one lost": lambda: wire.seldom(2, 1),
    "two of three lost": lambda: wire.seldom(3, 0),
}
SILENCES = (1, 4, 9, 16, 25)
LAGS = (1, 4, 9)


async def disturbed(served: Play, scenario: Scenario, fault: Fault, anew_at: int = -1) -> Play:
    play = await again(served)
    play.wire.fault, play.wire.anew_at = fault, anew_at
    await scenario(play)
    return play


@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_events_that_do_not_come_as_they_should(served: Play, scenario: Scenario) -> None:
    lived = await Lived.through(await again(served), scenario)
    for name, fault in FAULTS.items():
        play = await disturbed(served, scenario, fault())
        await lived.same(play, name, stale=True)


@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_an_event_that_is_hidden_until_it_is_overwritten_or_swept(
    served: Play, scenario: Scenario
) -> None:
    undisturbed = await again(served)
    lived = await Lived.through(undisturbed, scenario)
    for number in range(1, undisturbed.wire.told + 1, 6):
        play = await disturbed(served, scenario, wire.hidden(number))
        await lived.same(play, f"without event {number}", stale=True)


@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_a_watch_that_is_silent_and_begins_anew(served: Play, scenario: Scenario) -> None:
    """As after a 410: it lists everything, and does not tell what is gone."""
    lived = await Lived.through(await again(served), scenario)
    for first in SILENCES:
        play = await disturbed(served, scenario, wire.silent(first, 6), first + 6)
        await lived.same(play, f"silent from event {first} on", stale=True)


@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_an_operator_that_starts_from_an_old_list(served: Play, scenario: Scenario) -> None:
    lived = await Lived.through(await again(served), scenario)
    for lag in LAGS:
        for death in range(len(served.writes) + 1, len(lived.writes) + 1, 9):
            play = await again(served)
            play.kill_after, play.lag = death, lag
            await scenario(play)
            assert play.deaths == 1
            at = f"{lag} events behind, after {lived.writes[death - 1]} ({death})"
            await lived.same(play, at, stale=True)


@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_reports_that_come_as_often_as_they_are_asked_for(
    served: Play, scenario: Scenario
) -> None:
    """What routers said last may be ten seconds old: pods that they reached are gone since."""
    lived = await Lived.through(await again(served), scenario)
    play = await again(served)
    play.paced = True
    await scenario(play)
    await lived.same(play, "paced", stale=True)


async def test_a_version_whose_pods_have_just_gone_is_named_when_they_are_there_again(
    served: Play,
) -> None:
    """Routers were asked last while they still reached them."""
    play = await again(served)
    play.paced = play.clients.ask = True
    await play.put(version("v2"))
    old = (DEPLOYMENT, NAMESPACE, deployment_name("tiny-e0", sha("a")))
    while old in play.api.objects:
        await play.passes(0.25)
    await play.put(override("back", "tiny-e0", "Serve", version="v1", insteadOf="v2"))
    await play.rest()
    back = play.witness.tables[-1].expert("e0")
    assert back is not None
    assert back.stable is not None
    assert back.stable.version == "v1"
