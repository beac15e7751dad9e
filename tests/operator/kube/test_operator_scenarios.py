"""Every scenario of the replay once on a real API server: the same end, and as many writes."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter

import pytest

from moe_operator.kinds import KINDS
from tests.kube.server import KubeServer
from tests.operator.engine.lived import Lived, decisive, later
from tests.operator.engine.play import Play
from tests.operator.engine.scenarios import SCENARIOS, TOGETHER, Scenario, from_nothing
from tests.operator.engine.scene import outcome
from tests.operator.kube.scene import scene

_AT_ONCE = 4  # operators in one loop: more of them make handshakes wait for seconds
_BEGUN = 2  # epoch of a mixture that is served, where all first versions came in one table
_VERBS = {"create": "create", "replace": "update", "apply": "patch", "merge": "patch"}


async def replayed(scenario: Scenario) -> tuple[Lived, Counter[str]]:
    """Return what comes of a scenario in the replay, and its writes as an audit log has them."""
    play = Play()
    await from_nothing(play)
    before = len(play.writes)
    lived = await Lived.through(play, scenario)
    written: Counter[str] = Counter()
    for write, count in decisive(lived.writes[before:]).items():
        verb, kind = write.split()
        written[f"{_VERBS.get(verb, verb)} {KINDS[kind].plural}"] += count
    return lived, written


async def plays_out_alike(server: KubeServer, scenario: Scenario) -> None:
    lived, written = await replayed(scenario)
    namespace = f"test-{uuid.uuid4().hex[:10]}"
    await asyncio.to_thread(server.create_namespace, namespace)
    async with scene(server, namespace) as real:
        await from_nothing(real)
        begun = (await outcome(real))["epoch"]
        place = server.audit.position()
        await scenario(real)
        end, name = await outcome(real), scenario.__name__
        # Where the first pods came up one after another, there was one table more.
        more = end["epoch"] - lived.end["epoch"]
        assert more in range(TOGETHER.get(scenario, 1) + 1), name
        assert end == later(lived.end, more), name
        if scenario in TOGETHER:
            written += Counter({"update routingtables": more})
        else:
            assert more == begun - _BEGUN, name
        assert real.decisive(place) == written, name


@pytest.mark.timeout(300)
@pytest.mark.parametrize("first", range(0, len(SCENARIOS), _AT_ONCE))
async def test_scenarios_play_out_as_in_the_replay(installed: KubeServer, first: int) -> None:
    async with asyncio.TaskGroup() as group:
        for scenario in SCENARIOS[first : first + _AT_ONCE]:
            group.create_task(plays_out_alike(installed, scenario))
    await asyncio.sleep(1)  # so many connections that were closed need the loop a little longer
