"""The operator killed after any of its writes: what comes of it is what would have come anyway.

The end is the same, and so is the number of all writes that decide anything: revisions, tables,
children and deletions, each tried until it is done and done once. What is only said in status may
be said once less by an operator that died before it, or again by one that knows nothing yet; it is
bounded.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import pytest

from moe_operator.cluster import ApiError, Conflict, Unavailable
from tests.operator.engine.lived import Lived, again
from tests.operator.engine.play import Play
from tests.operator.engine.scenarios import SCENARIOS, Scenario, from_nothing

REFUSALS: Mapping[str, tuple[ApiError, bool]] = {
    "409": (Conflict("seen another"), False),
    "429": (Unavailable("too many requests", 2.0), False),
    "500": (Unavailable("internal error"), False),
    "done, but the answer was lost": (Unavailable("timed out"), True),
}


async def test_a_mixture_is_served_whenever_the_operator_dies_before() -> None:
    lived = await Lived.through(Play(), from_nothing)
    for death in range(1, len(lived.writes) + 1):
        play = Play(kill_after=death)
        await from_nothing(play)
        died = f"after {lived.writes[death - 1]} ({death})"
        assert play.deaths == 1, died
        await lived.same(play, died)


@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_the_end_and_the_writes_are_those_of_an_operator_that_lived(
    served: Play, scenario: Scenario
) -> None:
    lived = await Lived.through(await again(served), scenario)
    for death in range(len(served.writes) + 1, len(lived.writes) + 1):
        play = await again(served)
        play.kill_after = death
        await scenario(play)
        died = f"after {lived.writes[death - 1]} ({death})"
        assert play.deaths == 1, died
        await lived.same(play, died)


@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_a_write_that_is_refused_once_changes_neither_the_end_nor_the_writes(
    served: Play, scenario: Scenario
) -> None:
    lived = await Lived.through(await again(served), scenario)
    errors = itertools.cycle(REFUSALS.items())
    for refused in range(len(served.writes), len(lived.writes), 2):
        said, (error, done) = next(errors)
        play = await again(served)
        play.refuse, play.refuse_after, play.loses_answer = error, refused, done
        await scenario(play)
        at = f"{lived.writes[refused]} ({refused}): {said}"
        assert play.refuse is None, at
        await lived.same(play, at)


@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_nothing_is_written_when_all_is_done(served: Play, scenario: Scenario) -> None:
    play = await again(served)
    await scenario(play)
    writes = len(play.writes)
    play.seconds += 3600
    await play.start()
    await play.rest()
    assert play.writes[writes:] == []
    assert play.witness.tables
