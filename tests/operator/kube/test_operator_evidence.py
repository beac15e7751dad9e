"""Evidence against a real API server: evaluators under its rules, and specs that it refuses."""

from __future__ import annotations

from typing import Any

import pytest

from moe_operator.cluster import ApiError
from moe_operator.kinds import EXPERT, POD, ROUTING_TABLE, Body, Kind
from tests.operator.engine.bodies import expert, gate, golden_set, mixture, sha
from tests.operator.kube.stage import Stage

NAMESPACE = Kind("Namespace", "", "v1", "namespaces", namespaced=False)
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
QUICK = {"steps": [{"weightPercent": 50, "pauseSeconds": 0}], "minRequests": 5}


def row(table: Body) -> dict[str, Any]:
    found: dict[str, Any] = next(r for r in table["spec"]["experts"] if r["expertId"] == "e0")
    return found


async def on_trial(stage: Stage) -> None:
    """Bring up a mixture with a golden set, and give e0 another version."""
    labels = {"metadata": {"labels": RESTRICTED}}
    await stage.api.merge(NAMESPACE, "", stage.namespace, labels)
    stage.start()
    await stage.apply(mixture(**golden_set()), expert("e0", sha("a"), rollout=QUICK), gate("e0"))
    await stage.until(ROUTING_TABLE, "tiny", lambda t: row(t).get("stable"))
    version = {"version": "v2", "artifact": {"uri": "file:///artifacts/v2", "sha256": sha("b")}}
    await stage.patch(EXPERT, "tiny-e0", {"spec": version})


async def test_a_golden_set_is_run_by_restricted_pods_until_it_says_something(
    stage: Stage,
) -> None:
    stage.nodes.broken_evaluations = 1
    await on_trial(stage)
    table = await stage.until(ROUTING_TABLE, "tiny", lambda t: row(t)["rollout"].get("evaluated"))
    assert "of 64 sequences" in row(table)["rollout"]["evaluated"]
    await stage.until(ROUTING_TABLE, "tiny", lambda t: row(t)["rollout"]["weights"])
    await stage.gone(POD, f"tiny-e0-eval-2-{'7' * 10}-1")
    await stage.gone(POD, f"tiny-e0-eval-2-{'7' * 10}-2")
    told = await stage.until(
        EXPERT, "tiny-e0", lambda e: len(e["status"]["rollout"]["evidence"]) > 3
    )
    states = {e["name"]: e["state"] for e in told["status"]["rollout"]["evidence"]}
    assert (states["golden"], states["requests"]) == ("Pass", "Waiting")


async def test_a_version_that_is_worse_on_the_golden_set_never_gets_weight(stage: Stage) -> None:
    stage.nodes.losses[sha("b")] = 0.5
    await on_trial(stage)
    table = await stage.until(
        ROUTING_TABLE, "tiny", lambda t: row(t)["rollout"]["outcome"] == "RolledBack"
    )
    assert row(table)["rollout"]["weights"] == []
    assert "+0.500 bits per token" in row(table)["rollout"]["reason"]


QUERY = {"name": "errors", "query": "up", "maxIncreasePercent": 10}
GOLDEN = golden_set()["evaluation"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        pytest.param(mixture(evaluation=GOLDEN), "evaluation needs trunk.uri", id="no trunk"),
        pytest.param(
            mixture(**{**golden_set(), "evaluation": {**GOLDEN, "maxLossIncrease": "1"}}),
            "spec.evaluation.maxLossIncrease",
            id="a margin that is no percentage",
        ),
        pytest.param(
            mixture(prometheus={"address": "prometheus:9090"}),
            "spec.prometheus.address",
            id="an address without a scheme",
        ),
        pytest.param(
            mixture(prometheus={"address": "http://user:secret@prometheus"}),
            "spec.prometheus.address",
            id="a secret in an address",
        ),
        pytest.param(
            expert("e0", rollout={"shadowPercent": 101}), "shadowPercent", id="more than all"
        ),
        pytest.param(
            expert("e0", rollout={"analysis": {"prometheus": [QUERY, QUERY]}}),
            "duplicate",
            id="two queries of one name",
        ),
        pytest.param(
            expert("e0", evaluation={**GOLDEN, "slices": [{"name": "code"}]}),
            "maxLossIncrease: Required",
            id="a slice without a margin",
        ),
    ],
)
async def test_a_mistake_is_refused_where_it_is_written(
    stage: Stage, body: dict[str, Any], words: str
) -> None:
    with pytest.raises(ApiError, match=words):
        await stage.apply(body)


async def test_what_is_not_set_is_filled_in_as_the_operator_reads_it(stage: Stage) -> None:
    analysis = {"prometheus": [QUERY]}
    await stage.apply(expert("e0", evaluation=GOLDEN, rollout={"analysis": analysis}))
    spec = (await stage.get(EXPERT, "tiny-e0"))["spec"]
    assert spec["evaluation"]["maxLossIncrease"] == "1%"
    assert (spec["rollout"]["shadowPercent"], spec["rollout"]["evidenceDeadlineSeconds"]) == (
        0,
        3600,
    )
    assert spec["rollout"]["analysis"]["maxTailLatencyIncreasePercent"] == 400
    assert spec["rollout"]["analysis"]["maxOverflowIncreasePercent"] == 10
    assert spec["rollout"]["analysis"]["outcomes"] == {"maxLossIncrease": "5%", "minSessions": 30}
