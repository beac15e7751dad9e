"""People change their minds in the middle of things: what it comes to, whatever was killed when.

The cases of Argo Rollouts' end-to-end tests, with experts. Each runs undisturbed, and with an
operator that dies before each single write: the end is the same, and so is the number of tables.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from moe_core.rollout import Outcome
from tests.operator.plan.bodies import expert, gate, mixture, override, sha, steps
from tests.operator.plan.looks import deployments, outcome, row, stable
from tests.operator.plan.simulation import Behaviour, Simulation

BAD = Behaviour(nonfinite=True)
QUICK = {"steps": steps(50, 100, pause=1), "minRequests": 1, "scaleDownDelaySeconds": 2}
SETTLES_S = 14


def fresh() -> Simulation:
    sim = Simulation(traffic=4)
    sim.put("Mixture", mixture(routers={"replicas": 1}))
    sim.put("Expert", expert("e0", rollout=QUICK))
    sim.put("Gate", gate(["e0"]))
    return sim.run(7)


def decide(sim: Simulation, name: str, action: str, **spec: Any) -> None:
    sim.put("Override", override(name, "e0", action, **spec))
    sim.run(2)


def abort_retry_promote(sim: Simulation) -> None:
    sim.want("e0", "v2")
    sim.run(4)
    decide(sim, "stop", "Abort", revision=2)
    decide(sim, "again", "Retry", revision=2)
    sim.run(3)
    decide(sim, "go", "Promote", revision=3)


def good_to_bad(sim: Simulation) -> None:
    sim.behaviours[sha("e0", "v2")] = BAD
    sim.want("e0", "v2")


def bad_to_good(sim: Simulation) -> None:
    good_to_bad(sim)
    sim.run(8)
    sim.want("e0", "v3")


def bad_to_bad(sim: Simulation) -> None:
    good_to_bad(sim)
    sim.run(8)
    sim.behaviours[sha("e0", "v3")] = BAD
    sim.want("e0", "v3")


def version_and_replicas_together(sim: Simulation) -> None:
    sim.change("e0", replicas=3)
    sim.want("e0", "v2")


def scaling_in_the_middle(sim: Simulation) -> None:
    sim.change("e0", replicas=2)
    sim.want("e0", "v2")
    sim.run(4)
    sim.change("e0", replicas=4)
    sim.run(2)
    sim.change("e0", replicas=1)


def all_candidate_pods_deleted(sim: Simulation) -> None:
    sim.traffic = 0
    sim.change("e0", rollout={**QUICK, "minRequests": 0})
    sim.want("e0", "v2")
    sim.run(4)
    sim.kill_pods(sha("e0", "v2"))


def three_changes_within_a_second(sim: Simulation) -> None:
    for version in ("v2", "v3", "v1"):
        sim.want("e0", version)
        sim.operate()


def three_changes_between_two_looks(sim: Simulation) -> None:
    for version in ("v2", "v3", "v1"):
        sim.want("e0", version)


def an_expert_made_again(sim: Simulation) -> None:
    sim.remove("Expert", "e0")
    sim.run(2)
    sim.put("Expert", anew(expert("e0", "v2", created=30, rollout=QUICK)))


def an_expert_made_again_between_two_looks(sim: Simulation) -> None:
    sim.remove("Expert", "e0")
    sim.put("Expert", anew(expert("e0", "v1", created=30, rollout=QUICK)))


def a_namespace_made_again(sim: Simulation) -> None:
    """Everything goes, and comes back with other uids."""
    for kind, name in list(sim.bodies):
        sim.remove(kind, name)
    sim.stored, sim.revisions, sim.children = None, {}, {}
    for found in list(sim.deployments):
        sim.drop(found)
    sim.run(1)
    for kind, body in (
        ("Mixture", mixture(routers={"replicas": 1})),
        ("Expert", expert("e0", "v2", rollout=QUICK)),
        ("Gate", gate(["e0"])),
    ):
        sim.put(kind, anew(body))


def a_change_while_the_operator_is_down(sim: Simulation) -> None:
    sim.want("e0", "v2")
    sim.run(4)
    sim.away = True
    sim.run(5)
    sim.want("e0", "v3")
    sim.run(5)
    sim.away = False


def a_failure_while_the_operator_is_down(sim: Simulation) -> None:
    sim.want("e0", "v2")
    sim.run(4)
    sim.away = True
    sim.behaviours[sha("e0", "v2")] = BAD
    sim.run(5)
    sim.away = False
    sim.kill_operator()


def anew(body: dict[str, Any]) -> dict[str, Any]:
    meta = body["metadata"]
    return {**body, "metadata": {**meta, "uid": f"{meta['uid']}-again"}}


@dataclass(frozen=True, slots=True)
class Story:
    """What happens, and what it comes to: pods by version, and how the last rollout ended."""

    happens: Callable[[Simulation], None]
    pods: Mapping[str, int]
    ends: Outcome = Outcome.PROMOTED

    def __str__(self) -> str:
        return self.happens.__name__


STORIES = (
    Story(abort_retry_promote, {"v2": 1}),
    Story(good_to_bad, {"v1": 1}, Outcome.ROLLED_BACK),
    Story(bad_to_good, {"v3": 1}),
    Story(bad_to_bad, {"v1": 1}, Outcome.ROLLED_BACK),
    Story(version_and_replicas_together, {"v2": 3}),
    Story(scaling_in_the_middle, {"v2": 1}),
    Story(all_candidate_pods_deleted, {"v2": 1}),
    Story(three_changes_within_a_second, {"v1": 1}, Outcome.ABORTED),
    Story(three_changes_between_two_looks, {"v1": 1}),
    Story(an_expert_made_again, {"v2": 1}),
    Story(an_expert_made_again_between_two_looks, {"v1": 1}),
    Story(a_namespace_made_again, {"v2": 1}),
    Story(a_change_while_the_operator_is_down, {"v3": 1}),
    Story(a_failure_while_the_operator_is_down, {"v1": 1}, Outcome.ROLLED_BACK),
)


def run(story: Story, die_before: int | None = None) -> Simulation:
    """Run a story to its end; the operator dies before that write of it."""
    sim = fresh()
    begun = len(sim.writes)
    sim.die_after = None if die_before is None else begun + die_before
    story.happens(sim)
    sim.run(SETTLES_S)
    sim.writes = sim.writes[begun:]
    return sim


def comes_to(sim: Simulation, story: Story) -> None:
    """Check the end, and that nothing is written any more."""
    assert {stable(sim)} == set(story.pods)
    assert deployments(sim) == {sha("e0", version): n for version, n in story.pods.items()}
    assert outcome(sim) is story.ends
    assert (row(sim).candidate, row(sim).previous) == (None, None)
    sim.writes.clear()
    sim.die_after = None
    sim.run(4)
    assert sim.writes == []


@pytest.mark.parametrize("story", STORIES, ids=str)
def test_what_people_do_in_the_middle_comes_to_what_they_want(story: Story) -> None:
    comes_to(run(story), story)


@pytest.mark.parametrize("story", STORIES, ids=str)
def test_an_operator_that_dies_before_any_write_changes_nothing_of_it(story: Story) -> None:
    undisturbed = run(story)
    for write, name in enumerate(undisturbed.writes):
        sim = run(story, write)
        assert sim.die_after is None, f"death before {name} took no effect"
        sim.run(4)
        tables = sim.writes.count("table")
        comes_to(sim, story)
        assert tables == undisturbed.writes.count("table"), f"death before write {write}, {name}"
