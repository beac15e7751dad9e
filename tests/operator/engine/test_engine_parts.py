"""Stories of a mixture whose table is in parts.

What is proven of tables in one piece holds of them too: every table that the API server takes has
all its parts, none of them ever goes while it is named, and none stays that is not.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from moe_operator.cache import Cache, Key
from moe_operator.journal import BrokenTable
from moe_operator.kinds import CONTROLLER_REVISION, MIXTURE, ROUTING_TABLE, Body
from moe_operator.observe import observe
from tests.operator.engine import wire
from tests.operator.engine.bodies import NAMESPACE
from tests.operator.engine.lived import Lived, again
from tests.operator.engine.play import Play
from tests.operator.engine.scenarios import (
    Scenario,
    aborted_retried_promoted,
    expert_made_again,
    from_nothing,
    gate_and_experts_changed,
    good,
    mixture_made_again,
    namespace_made_again,
)
from tests.operator.engine.scene import outcome, remove
from tests.support.whole import is_part

SCENARIOS = (
    good,
    aborted_retried_promoted,
    expert_made_again,
    mixture_made_again,
    namespace_made_again,
    gate_and_experts_changed,
)


@pytest.fixture(scope="module")
def served() -> Play:
    """Two experts and a gate that are served by a table in parts; to be copied."""
    play = Play(largest_table=0)
    asyncio.run(from_nothing(play))
    return play


def head(play: Play) -> Any:
    return play.api.objects[ROUTING_TABLE, NAMESPACE, "tiny"]["spec"]


def parts(play: Play) -> list[Body]:
    found = (body for place, body in play.api.objects.items() if place[0] == CONTROLLER_REVISION)
    return [body for body in found if is_part(body)]


def in_one_piece(end: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in end.items() if name != "parts in vain"}


@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_a_death_after_any_write_changes_neither_the_end_nor_the_writes(
    served: Play, scenario: Scenario
) -> None:
    lived = await Lived.through(await again(served), scenario)
    assert lived.end["parts in vain"] == 0
    for death in range(len(served.writes) + 1, len(lived.writes) + 1):
        play = await again(served)
        play.kill_after = death
        await scenario(play)
        died = f"after {lived.writes[death - 1]} ({death})"
        assert play.deaths == 1, died
        await lived.same(play, died)


async def test_it_is_served_whenever_the_operator_dies_before() -> None:
    lived = await Lived.through(Play(largest_table=0), from_nothing)
    for death in range(1, len(lived.writes) + 1):
        play = Play(kill_after=death, largest_table=0)
        await from_nothing(play)
        assert play.deaths == 1
        await lived.same(play, f"after {lived.writes[death - 1]} ({death})")


@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_views_that_are_late_and_old_lists_change_nothing(
    served: Play, scenario: Scenario
) -> None:
    lived = await Lived.through(await again(served), scenario)
    for lag in (1, 4, 9):
        for death in range(len(served.writes) + 1, len(lived.writes) + 1, 7):
            play = await again(served)
            play.kill_after, play.lag = death, lag
            await scenario(play)
            at = f"{lag} events behind, after {lived.writes[death - 1]} ({death})"
            await lived.same(play, at, stale=True)
    for fault in (wire.late(2), wire.reordered(1), wire.no_deletions, wire.seldom(3, 0)):
        play = await again(served)
        play.wire.fault = fault
        await scenario(play)
        await lived.same(play, str(fault), stale=True)


@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_a_table_in_parts_says_what_one_in_one_piece_says(
    served: Play, scenario: Scenario
) -> None:
    play, whole = await again(served), Play()
    await from_nothing(whole)
    await scenario(play)
    await scenario(whole)
    assert in_one_piece(await outcome(play)) == in_one_piece(await outcome(whole))


async def test_nothing_is_written_when_all_is_done(served: Play) -> None:
    play = await again(served)
    await good(play)
    writes = len(play.writes)
    play.seconds += 3600
    await play.start()
    await play.rest()
    assert play.writes[writes:] == []


async def test_only_the_parts_of_rows_that_changed_are_written(served: Play) -> None:
    play = await again(served)
    epoch, before = head(play)["epoch"], len(play.writes)
    await good(play)
    made = play.writes[before:].count("create Part")
    assert made == head(play)["epoch"] - epoch  # one row changes from epoch to epoch


async def test_a_table_goes_over_to_parts_and_comes_back(served: Play) -> None:
    play = served.copy()
    play.largest_table = 1_000_000
    await play.start()
    await good(play)
    assert "parts" not in head(play)
    assert parts(play) == []


async def test_parts_go_with_the_mixture(served: Play) -> None:
    play = await again(served)
    await remove(play, MIXTURE, "tiny")
    await play.rest()
    assert parts(play) == []


@pytest.mark.parametrize("altered", [False, True])
def test_a_table_whose_part_is_missing_or_altered_is_broken(served: Play, altered: bool) -> None:
    """Nothing is decided then: what routers serve is served on."""
    cache, (part, *_) = Cache(), parts(served)
    for (kind, _, _), body in served.api.objects.items():
        if body is not part:
            cache.put(kind, body)
        elif altered:
            cache.put(kind, {**body, "data": {**body["data"], "epoch": 0}})
    name = part["metadata"]["name"]
    with pytest.raises(BrokenTable, match=f"tiny cannot be read: its part {name} is not there"):
        observe(cache, Key(NAMESPACE, "tiny"), (), ())
