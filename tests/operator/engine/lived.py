"""What came of a scenario undisturbed, and whether another run came to the same.

The end is to be the same, and so is the number of all writes that decide anything: revisions,
tables, children and deletions, each tried until it is done, and done once. Parts of a table that
was not written, because an operator died before, are made again with another time in them; the
others go. What is only said in
status may be said less often, where an operator died before it or saw several changes as one, and
a few times more, by one that knows nothing yet. Where pods of several experts come up together,
those that come a moment later are one table more.

Who decides on an old view cannot do the same in the same order: a decision of a person that is
read late finds pods gone that are then started again. There the end, revisions and tables are to
be the same, and children may have gone and come again; where the person acted in the middle of a
rollout, which went on, only what is served in the end is the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from tests.operator.engine.play import Play
from tests.operator.engine.scenarios import MOVING, TOGETHER, Scenario
from tests.operator.engine.scene import outcome

_TABLE = "replace RoutingTable"
_SAID_AGAIN = 8
_OF_CHILDREN = (
    *("apply Deployment", "delete Deployment", "merge Deployment"),
    "apply PodDisruptionBudget",  # of each Deployment that is made
    *("create Pod", "delete Pod"),  # evaluators
)
_CHILDREN_AGAIN = 4  # of two experts each, down and up again


def decisive(writes: Iterable[str]) -> Counter[str]:
    """Return how often each kind of write was done, without status and parts of tables."""
    return Counter(
        write
        for write in writes
        if not write.startswith("merge status") and not write.endswith(" Part")
    )


def statuses(writes: Iterable[str]) -> int:
    return sum(write.startswith("merge status") for write in writes)


@dataclass(frozen=True, slots=True)
class Lived:
    """An undisturbed run."""

    writes: tuple[str, ...]
    end: Mapping[str, Any]
    scenario: Scenario

    @classmethod
    async def through(cls, play: Play, scenario: Scenario) -> Self:
        await scenario(play)
        return cls(tuple(play.writes), await outcome(play), scenario)

    async def same(self, play: Play, what: str, *, stale: bool = False) -> None:
        """Raise AssertionError where another run came to something else.

        `stale` says that it decided on old views.
        """
        end, done, wanted = await outcome(play), decisive(play.writes), decisive(self.writes)
        if stale and self.scenario in MOVING:
            assert _served(end) == _served(self.end), what
            return
        more = end["epoch"] - self.end["epoch"]
        assert more in range(TOGETHER.get(self.scenario, 0) + 1), f"{what}: {more} tables more"
        assert end == later(self.end, more), what
        wanted[_TABLE] += more
        for write in _OF_CHILDREN if stale else ():
            assert done.pop(write, 0) in range(wanted.pop(write, 0) + _CHILDREN_AGAIN + 1), what
        assert done == wanted, what
        assert stale or statuses(play.writes) <= statuses(self.writes) + _SAID_AGAIN, what


def later(end: Mapping[str, Any], tables: int) -> dict[str, Any]:
    """Return an end as it is where so many first versions came in a table of their own."""
    return {**end, "epoch": end["epoch"] + tables}


def _served(end: Mapping[str, Any]) -> dict[str, Any]:
    parts = ("stable", "candidate", "previous", "outcome")
    rows = {name: [row[part] for part in parts] for name, row in end["experts"].items()}
    return {"experts": rows, **{part: end[part] for part in ("gates", "deployments", "in use")}}


async def again(served: Play) -> Play:
    """Return a scene as the given one is, with an operator that knows nothing yet."""
    play = served.copy()
    await play.start()
    return play
