"""What a person asks for becomes an Override, or a sentence that says why not."""

from __future__ import annotations

from typing import Any

import pytest

from kubectl_moe import decide, past
from kubectl_moe.decide import Refused, Skip
from kubectl_moe.past import Unknown
from tests.kubectl import bodies

PAST = past.history([bodies.revision(2, "v2"), bodies.revision(1, "v1"), bodies.revision(3, "v3")])


def spec_of(decision: dict[str, Any] | Skip) -> dict[str, Any]:
    assert isinstance(decision, dict)
    spec: dict[str, Any] = decision["spec"]
    return spec


def test_history_is_in_order_of_revision() -> None:
    assert [p.version for p in PAST] == ["v1", "v2", "v3"]


def test_rollback_without_a_version_goes_to_the_one_before_what_is_served() -> None:
    expert = bodies.expert(version="v3", sha256=bodies.sha("v3"))
    expert["status"]["version"] = "v3"
    spec = spec_of(decide.rollback(expert, PAST, [], None, "slow"))
    assert (spec["version"], spec["insteadOf"], spec["reason"]) == ("v2", "v3", "slow")
    assert spec["targetRef"] == {"kind": "Expert", "name": "tiny-e3"}


def test_an_override_goes_with_its_target_and_is_none_of_the_next_one_of_that_name() -> None:
    decision = decide.rollback(bodies.expert(candidate="v2"), PAST, [], "v2", "")
    assert isinstance(decision, dict)
    assert decision["metadata"]["ownerReferences"] == [
        {
            "apiVersion": "moeops.dev/v1alpha1",
            "kind": "Expert",
            "name": "tiny-e3",
            "uid": "uid of tiny-e3",
        }
    ]


def test_rollback_while_a_candidate_is_on_trial_goes_to_stable() -> None:
    expert = bodies.expert(version="v2", candidate="v2")
    assert spec_of(decide.rollback(expert, PAST, [], None, ""))["version"] == "v1"


def test_rollback_to_what_is_served_is_skipped_with_the_reason() -> None:
    expert = bodies.expert(version="v2")
    decision = decide.rollback(expert, PAST, [], "v1", "")
    assert decision == Skip("expert 'tiny-e3' already serves v1")


def test_rollback_to_a_version_that_never_was_names_those_that_were() -> None:
    known = r"never had a version or revision 'v9'; it had 1 \(v1\), 2 \(v2\), 3 \(v3\)"
    with pytest.raises(Unknown, match=known):
        decide.rollback(bodies.expert(), PAST, [], "v9", "")


def test_rollback_takes_the_number_of_a_revision_too() -> None:
    expert = bodies.expert(version="v3")
    expert["status"]["version"] = "v3"
    assert spec_of(decide.rollback(expert, PAST, [], "1", ""))["version"] == "v1"


def test_rollback_of_the_first_version_has_nowhere_to_go() -> None:
    with pytest.raises(Refused, match="no earlier version"):
        decide.rollback(bodies.expert(), PAST[:1], [], None, "")


def test_rollback_to_what_the_spec_asks_for_points_to_resume() -> None:
    with pytest.raises(Refused, match="kubectl moe resume tiny-e3"):
        decide.rollback(bodies.expert(version="v2"), PAST, [], "v2", "")


def test_asking_twice_is_skipped_while_the_first_holds() -> None:
    there = bodies.override("Serve", version="v1", insteadOf="v2")
    expert = bodies.expert(version="v2", candidate="v2")
    decision = decide.rollback(expert, PAST, [there], "v1", "")
    assert decision == Skip("Override tiny-e3-serve-x already asks for that")
    lapsed = bodies.override("Serve", "Lapsed", version="v1", insteadOf="v2")
    assert spec_of(decide.rollback(expert, PAST, [lapsed], "v1", ""))["action"] == "Serve"


@pytest.mark.parametrize(
    ("action", "outcome", "allowed"),
    [
        ("Promote", "Progressing", True),
        ("Abort", "Paused", True),
        ("Retry", "RolledBack", True),
        ("Retry", "Aborted", True),
        ("Promote", "Promoted", False),
        ("Abort", "RolledBack", False),
        ("Retry", "Progressing", False),
    ],
)
def test_decisions_bind_to_the_revision_that_was_seen(
    action: str, outcome: str, allowed: bool
) -> None:
    expert = bodies.expert(rollout=bodies.rollout(outcome, revision=7))
    if allowed:
        assert spec_of(decide.once(action, expert, [], ""))["revision"] == 7
    else:
        with pytest.raises(Refused, match=outcome):
            decide.once(action, expert, [], "")


def test_resume_removes_what_holds_this_expert_only() -> None:
    other = bodies.override("Pause", insteadOf="v1")
    other["spec"]["targetRef"]["name"] = "tiny-e4"
    there = [
        bodies.override("Pause", insteadOf="v1"),
        bodies.override("Serve", "Lapsed", version="v1", insteadOf="v0"),
        bodies.override("Abort", revision=1),
        other,
    ]
    assert decide.holding(bodies.expert(), there) == ("tiny-e3-pause-x",)
