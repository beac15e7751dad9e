"""Each way that an Override can go, as one table: what is so, what is asked, what becomes of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest

from moe_core.rollout import Outcome
from tests.operator.plan.bodies import override, sha, steps
from tests.operator.plan.looks import outcome, started, until_weight
from tests.operator.plan.simulation import Behaviour, Died, Simulation

Prepare = Callable[[], Simulation]


def served() -> Simulation:
    """v1 is served, as the spec asks."""
    return started()


def on_trial() -> Simulation:
    """v2 is revision 2, at the first of two long steps."""
    sim = started(rollout={"steps": steps(25, 100, pause=30)})
    sim.want("e0", "v2")
    until_weight(sim, 25)
    return sim


def starting() -> Simulation:
    """v2 is revision 2, and its pods are not there yet."""
    sim = started()
    sim.want("e0", "v2")
    sim.operate()
    return sim


def failed() -> Simulation:
    """v2 was revision 2; evidence took it back."""
    sim = started()
    sim.behaviours[sha("e0", "v2")] = Behaviour(nonfinite=True)
    sim.want("e0", "v2")
    return sim.run(12)


def promoted() -> Simulation:
    """v2 was revision 2; it is served, and v1 is warm."""
    sim = started(rollout={"scaleDownDelaySeconds": 60})
    sim.want("e0", "v2")
    return sim.run(15)


def held() -> Simulation:
    """v1 is served instead of v2 by an Override."""
    sim = promoted()
    sim.put("Override", override("first", "e0", "Serve", version="v1", insteadOf="v2"))
    return sim.run(2)


@pytest.mark.parametrize(
    ("prepare", "action", "spec", "state", "words"),
    [
        (promoted, "Serve", ("v1", "v2"), "Active", "v1 is served instead of v2"),
        (on_trial, "Serve", ("v1", "v2"), "Active", "v1 is served instead of v2"),
        (failed, "Serve", ("v1", "v2"), "Active", "v1 is served instead of v2"),
        (promoted, "Serve", ("v1", "v0"), "Lapsed", "spec.version is v2, no longer v0"),
        (promoted, "Serve", ("v9", "v2"), "Refused", "there is no version v9; there are v1, v2"),
        (promoted, "Serve", ("v2", "v2"), "Refused", "version and insteadOf are both v2"),
        (on_trial, "Pause", "v2", "Active", "rollouts of v2 go no step further"),
        (served, "Pause", "v1", "Active", "rollouts of v1 go no step further"),
        (on_trial, "Pause", "v1", "Lapsed", "spec.version is v2, no longer v1"),
        (on_trial, "Promote", (2, 1), "Done", "revision 2, v2, is Promoted"),
        (on_trial, "Promote", (2, None), "Done", "revision 2, v2, is Promoted"),
        (starting, "Promote", (2, None), "Pending", "v2 is not routable yet"),
        (on_trial, "Promote", (2, 0), "Lapsed", "step 0 is over; step 1 is in progress"),
        (on_trial, "Promote", (1, None), "Lapsed", "revision 1 is over; revision 2 is newer"),
        (on_trial, "Promote", (3, None), "Pending", "revision 3 has not begun"),
        (failed, "Promote", (2, None), "Lapsed", "revision 2 has ended: it is RolledBack"),
        (promoted, "Promote", (2, None), "Done", "revision 2, v2, is Promoted"),
        (on_trial, "Abort", (2, 1), "Done", "revision 2, v2, is Aborted"),
        (starting, "Abort", (2, None), "Done", "revision 2, v2, is Aborted"),
        (promoted, "Abort", (2, None), "Lapsed", "revision 2 has ended: it is Promoted"),
        (failed, "Abort", (2, None), "Lapsed", "revision 2 has ended: it is RolledBack"),
        (failed, "Retry", (2, None), "Done", "tried again as revision 3"),
        (on_trial, "Retry", (2, None), "Lapsed", "revision 2 has not failed: it is Progressing"),
        (promoted, "Retry", (2, None), "Lapsed", "revision 2 has not failed: it is Promoted"),
        (failed, "Retry", (1, None), "Lapsed", "revision 1 is over; revision 2 is newer"),
        (held, "Retry", (2, None), "Pending", "another Override or rollout has to end first"),
    ],
)
def test_what_becomes_of_an_override(
    prepare: Prepare, action: str, spec: Any, state: str, words: str
) -> None:
    sim = prepare()
    sim.put("Override", override("it", "e0", action, **asked(action, spec)))
    sim.operate()
    status = sim.bodies["Override", "it"]["status"]
    assert (status["state"], status["message"]) == (state, words)
    told = [(note.reason, note.message) for note in sim.told if note.name == "it"]
    over = state in ("Lapsed", "Refused")
    assert told == ([(state, words)] if over else []), "what counts no more is told, once"
    sim.run(3)
    assert len([note for note in sim.told if note.name == "it"]) == len(told)


def asked(action: str, spec: Any) -> dict[str, Any]:
    if action == "Pause":
        return {"insteadOf": spec}
    first, second = spec
    if action == "Serve":
        return {"version": first, "insteadOf": second}
    return {"revision": first, **({} if second is None else {"step": second})}


@pytest.mark.parametrize(
    ("action", "spec"), [("Serve", ("v1", "v2")), ("Pause", "v2")], ids=["Serve", "Pause"]
)
def test_what_holds_lapses_with_the_next_version_and_an_event(action: str, spec: Any) -> None:
    sim = on_trial()
    sim.put("Override", override("it", "e0", action, **asked(action, spec)))
    sim.run(2)
    assert sim.bodies["Override", "it"]["status"]["state"] == "Active"
    sim.want("e0", "v3")
    sim.run(2)
    lapsed = ("Lapsed", "spec.version is v3, no longer v2")
    status = sim.bodies["Override", "it"]["status"]
    assert (status["state"], status["message"]) == lapsed
    assert [(n.reason, n.message, n.warning) for n in sim.told if n.name == "it"] == [
        (*lapsed, True)
    ]


def test_what_acts_once_stays_done_when_the_next_version_comes() -> None:
    sim = on_trial()
    sim.put("Override", override("it", "e0", "Abort", revision=2))
    sim.run(2)
    sim.want("e0", "v3")
    sim.run(30)
    assert sim.bodies["Override", "it"]["status"]["state"] == "Done"


def test_an_override_of_an_expert_that_does_not_count_says_so() -> None:
    sim = served()
    sim.change("e0", layers=[7])
    sim.put("Override", override("it", "e0", "Pause", insteadOf="v1"))
    sim.operate()
    status = sim.bodies["Override", "it"]["status"]
    assert status["state"] == "Pending"
    assert status["message"] == (
        "Expert e0 does not count: spec.layers names 7; the mixture has 0 to 1"
    )


@pytest.mark.parametrize("writes", range(8))
def test_what_was_done_is_said_also_when_the_table_has_forgotten_it(writes: int) -> None:
    """The operator dies before it has said so, and the next person acts before it is back."""
    sim = on_trial()
    sim.put("Override", override("stop", "e0", "Abort", revision=2, requestedBy="ann"))
    sim.die_after = len(sim.writes) + writes
    with contextlib.suppress(Died):
        sim.look()
    sim.kill_operator()
    sim.die_after = None
    if outcome(sim) is Outcome.ABORTED:
        sim.put("Override", override("again", "e0", "Retry", revision=2))
        sim.operate()
        sim.put("Override", override("now", "e0", "Promote", revision=3))
    sim.run(8)
    overrides = [body for (kind, _), body in sim.bodies.items() if kind == "Override"]
    assert {body["status"]["state"] for body in overrides} == {"Done"}
    assert sim.bodies["Override", "stop"]["status"]["message"] == "revision 2, v2, is Aborted"


def test_what_another_person_did_to_a_revision_that_is_over_is_not_done_by_a_late_one() -> None:
    sim = on_trial()
    sim.put("Override", override("stop", "e0", "Abort", revision=2))
    sim.operate()
    sim.put("Override", override("again", "e0", "Retry", revision=2))
    sim.operate()
    sim.put("Override", override("late", "e0", "Abort", revision=2))
    sim.operate()
    status = sim.bodies["Override", "late"]["status"]
    lapsed = ("Lapsed", "revision 2 is over; revision 3 is newer")
    assert (status["state"], status["message"]) == lapsed
