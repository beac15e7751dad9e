"""Old revisions go, and what anything names stays."""

from __future__ import annotations

import pytest

from moe_core.rollout import Outcome, Rollout, Version
from moe_core.rows import ExpertRow, Role
from moe_operator.intent import Delete
from moe_operator.override_spec import OverrideSpec
from moe_operator.pruning import outdated
from moe_operator.world import Revision
from tests.operator.plan.bodies import override, sha
from tests.operator.plan.looks import outcome, stable, started

KEPT = 10


def version(number: int) -> Version:
    return Version(f"v{number}", sha("e0", f"v{number}"), f"file:///v{number}")


def revision(number: int, of: int) -> Revision:
    return Revision("e0", number, version(of), {}, f"e0-{number}", f"uid-{number}", f"{number}0")


TWELVE = [revision(number, of=number) for number in range(1, KEPT + 3)]
PLAIN = ExpertRow("e0", "e0", Role.ROUTED, (0,), stable=version(12))
TRIED = Rollout(13, version(2), 1, "2026-01-01T00:00:00Z", Outcome.ROLLED_BACK, "", "salt")


@pytest.mark.parametrize(
    ("row", "kept"),
    [
        pytest.param(PLAIN, set(), id="served is among the newest"),
        pytest.param(ExpertRow("e0", "e0", Role.ROUTED, (0,), stable=version(1)), {1}, id="stable"),
        pytest.param(
            ExpertRow("e0", "e0", Role.ROUTED, (0,), stable=version(12), previous=version(2)),
            {2},
            id="previous",
        ),
        pytest.param(
            ExpertRow("e0", "e0", Role.ROUTED, (0,), stable=version(12), rollout=TRIED),
            {2},
            id="the target of its last rollout",
        ),
    ],
)
def test_what_the_table_names_stays(row: ExpertRow, kept: set[int]) -> None:
    gone = {deletion.name for deletion in outdated(TWELVE, (PLAIN, row), (), KEPT)}
    assert gone == {f"e0-{number}" for number in {1, 2} - kept}


def test_what_an_override_names_stays() -> None:
    serve = override("back", "e0", "Serve", version="v1", insteadOf="v12")
    gone = outdated(TWELVE, (PLAIN,), (OverrideSpec.from_body(serve),), KEPT)
    assert gone == (Delete("ControllerRevision", "e0-2", "uid-2", "20"),)


def test_of_an_artifact_that_came_often_the_newest_stays() -> None:
    to_and_fro = [revision(number, of=number % 2) for number in range(1, 8)]
    later = [revision(number, of=number) for number in range(20, 20 + KEPT)]
    row = ExpertRow("e0", "e0", Role.ROUTED, (0,), stable=version(1))
    gone = {deletion.name for deletion in outdated([*to_and_fro, *later], (row,), (), KEPT)}
    assert gone == {f"e0-{number}" for number in range(1, 7)}


def test_nothing_goes_as_long_as_there_are_few() -> None:
    assert outdated(TWELVE[:KEPT], (PLAIN,), (), KEPT) == ()


def test_many_versions_of_an_expert_leave_the_newest_revisions() -> None:
    sim = started()
    for number in range(2, KEPT + 5):
        sim.want("e0", f"v{number}")
        sim.run(40)
        assert stable(sim) == f"v{number}"
    own = sorted(r.number for r in sim.revisions.values() if r.expert == "e0")
    assert own == list(range(5, KEPT + 5))
    sim.want("e0", "v1")
    sim.run(40)
    assert (stable(sim), outcome(sim)) == ("v1", Outcome.PROMOTED), "an old one is accepted anew"
