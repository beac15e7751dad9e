"""How an object is, from what its status says."""

from __future__ import annotations

from typing import Any

import pytest

from kubectl_moe.health import EXITS, Diagnosis, Exit, Health, diagnose, settled, worst
from tests.kubectl import bodies


def serving(kind: str, reason: str) -> dict[str, Any]:
    """Return a status that is Ready and has one more condition that holds."""
    return {
        "conditions": [
            {"type": "Ready", "status": "True", "reason": "Serving", "message": ""},
            {"type": kind, "status": "True", "reason": reason, "message": reason},
        ]
    }


def not_ready(reason: str, *, progressing: str) -> dict[str, Any]:
    return {
        "conditions": [
            {"type": "Ready", "status": "False", "reason": reason, "message": reason},
            {"type": "Progressing", "status": progressing, "reason": reason, "message": reason},
        ]
    }


@pytest.mark.parametrize(
    ("body", "health"),
    [
        pytest.param(bodies.expert(), Health.HEALTHY, id="served and ready"),
        pytest.param(
            bodies.expert(observedGeneration=0), Health.PROGRESSING, id="spec not seen yet"
        ),
        pytest.param(
            bodies.expert(rollout=bodies.rollout("Progressing")),
            Health.PROGRESSING,
            id="canary under way",
        ),
        pytest.param(
            bodies.expert(rollout=bodies.rollout("Paused")), Health.PAUSED, id="canary held"
        ),
        pytest.param(
            bodies.expert(rollout=bodies.rollout("RolledBack")),
            Health.ROLLED_BACK,
            id="candidate taken back",
        ),
        pytest.param(
            bodies.expert(rollout=bodies.rollout("Promoted")), Health.HEALTHY, id="promoted"
        ),
        pytest.param(
            bodies.expert(**not_ready("WaitingForPods", progressing="True")),
            Health.PROGRESSING,
            id="first pods are starting",
        ),
        pytest.param(
            bodies.expert(rollout=bodies.rollout("Aborted"), **serving("Progressing", "Complete")),
            Health.HEALTHY,
            id="aborted, and the spec asks for what is served",
        ),
        pytest.param(
            bodies.expert(**serving("Progressing", "WaitingForPrevious")),
            Health.PROGRESSING,
            id="the next rollout waits for its turn",
        ),
        pytest.param(
            bodies.expert(**serving("Degraded", "PodsNotReady")),
            Health.PROGRESSING,
            id="more pods are starting",
        ),
        pytest.param(
            bodies.expert(**serving("Degraded", "PodsMissing")),
            Health.DEGRADED,
            id="pods that do not come",
        ),
        pytest.param(
            bodies.expert(**not_ready("ArtifactRefused", progressing="False")),
            Health.DEGRADED,
            id="cannot be served",
        ),
    ],
)
def test_diagnosis(body: dict[str, Any], health: Health) -> None:
    assert diagnose(body).health is health


def test_the_worst_of_several_speaks_for_all() -> None:
    several = [
        Diagnosis(Health.HEALTHY),
        Diagnosis(Health.PAUSED, "held"),
        Diagnosis(Health.HEALTHY),
    ]
    assert worst(several) == Diagnosis(Health.PAUSED, "held")
    assert worst([]).health is Health.HEALTHY


def test_every_health_has_an_exit_code_and_only_progress_is_waited_for() -> None:
    assert set(EXITS) == set(Health)
    assert [h for h in Health if not settled(Diagnosis(h))] == [Health.PROGRESSING]
    assert EXITS[Health.ROLLED_BACK] is Exit.DEGRADED
    assert EXITS[Health.PAUSED] is Exit.PAUSED
