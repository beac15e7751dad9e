"""Specs as people write them, good and bad: each mistake is named with field, value and remedy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from moe_core.document import InvalidDocument
from moe_core.drift import Spread
from moe_core.rows import Role
from moe_core.table import LADDER, Rung
from moe_operator.drift_spec import OnAlarm
from moe_operator.evaluation import Evaluation
from moe_operator.override_spec import Action, OverrideSpec
from moe_operator.pods import ServiceType
from moe_operator.spec import ExpertSpec, GateSpec, MixtureSpec, Numerics
from moe_operator.strategy import OutcomeLimits, Query, Step
from tests.operator.plan.bodies import expert, gate, mixture, override, sha

Read = Callable[[dict[str, Any]], object]
READERS: Mapping[str, tuple[Read, dict[str, Any]]] = {
    "mixture": (MixtureSpec.from_body, mixture()),
    "expert": (ExpertSpec.from_body, expert("e0")),
    "gate": (GateSpec.from_body, gate(["e0", "e1"])),
    "override": (
        OverrideSpec.from_body,
        override("o", "e0", "Serve", version="v1", insteadOf="v2"),
    ),
}


GOLDEN = {"artifact": {"uri": "file:///golden", "sha256": "7" * 64}}


def recorded(*layers: dict[str, Any]) -> dict[str, Any]:
    """Return a drift spec with a baseline of the version in the gate's spec."""
    return {"baselines": [{"sha256": sha("gate", "g1"), "layers": list(layers)}]}


RECORDED = recorded({"layer": 0, "effectivePairs": 9, "pairs": [1, 2]})


def changed(body: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Return a copy of a body with one field of its spec set, or taken out where value is None."""
    head, _, rest = path.partition(".")
    inner = dict(body)
    if rest:
        inner[head] = changed(body.get(head, {}), rest, value)
    elif value is None:
        inner.pop(head, None)
    else:
        inner[head] = value
    return inner


@pytest.mark.parametrize(
    ("kind", "path", "value", "words"),
    [
        ("mixture", "spec.hiddenSize", None, "spec.hiddenSize is missing"),
        ("mixture", "spec.hiddenSize", 0, "spec.hiddenSize is 0; it must be 1 or more"),
        ("mixture", "spec.hiddenSize", "64", "spec.hiddenSize is '64'"),
        ("mixture", "spec.layers", True, "spec.layers is True"),
        ("mixture", "spec.dtype", "float16", "it must be one of Float32, BFloat16, Float16"),
        ("mixture", "spec.numerics", "Fastest", "it must be one of Exact, Fast"),
        ("mixture", "spec.trunk.sha256", "abc", "64 lower-case hexadecimal digits"),
        ("mixture", "spec.failover.ladder", ["Replica", "Pray"], "'Pray' is not a valid Rung"),
        ("mixture", "spec.failover.maxDegradedPercent", 101, "a whole number from 0 to 100"),
        ("mixture", "spec.routers.replicas", -1, "spec.routers.replicas is -1"),
        ("mixture", "spec.routers.service.type", "Ingress", "ClusterIP, NodePort, LoadBalancer"),
        ("mixture", "spec.workers.volumeClaims", [{"claimName": "a"}], "mountPath is missing"),
        ("mixture", "spec.workers.env", [{"name": "A", "value": 1}], "env[0].value is 1"),
        ("expert", "spec.mixtureRef", None, "spec.mixtureRef is missing"),
        ("expert", "spec.expertId", None, "spec.expertId is missing"),
        ("expert", "spec.role", "Leader", "it must be one of Routed, Shared, Dense"),
        ("expert", "spec.layers", [0, "1"], "spec.layers[1] is '1'; it must be a whole number"),
        ("expert", "spec.version", None, "spec.version is missing"),
        ("expert", "spec.artifact.sha256", "F" * 64, "64 lower-case hexadecimal digits"),
        ("expert", "spec.artifact.uri", 3, "spec.artifact.uri is 3; it must be text"),
        ("expert", "spec.replicas", 5000, "a whole number from 0 to 1024"),
        ("expert", "spec.rollout.steps", [{"weightPercent": 0}], "weightPercent is 0"),
        (
            "expert",
            "spec.rollout.steps",
            [{"weightPercent": 50}, {"weightPercent": 5}],
            "spec.rollout.steps has the weights [50, 5]; they must not fall",
        ),
        ("expert", "spec.rollout.progressDeadlineSeconds", 0, "it must be 1 or more"),
        ("expert", "spec.rollout.analysis.maxErrorPercent", 200, "from 0 to 100"),
        ("mixture", "spec.evaluation", {}, "spec.evaluation.artifact is missing"),
        (
            "mixture",
            "spec.evaluation",
            {**GOLDEN, "maxLossIncrease": "1"},
            "spec.evaluation.maxLossIncrease is '1'; it must be a percentage such as 1% or 0.5%",
        ),
        ("mixture", "spec.prometheus", {}, "spec.prometheus.address is missing"),
        ("mixture", "spec.evaluators.env", [{"name": "A"}], "env[0].value is missing"),
        (
            "expert",
            "spec.evaluation",
            {**GOLDEN, "slices": [{"name": "code"}]},
            "spec.evaluation.slices[0].maxLossIncrease is missing",
        ),
        ("expert", "spec.rollout.shadowPercent", 101, "a whole number from 0 to 100"),
        ("expert", "spec.rollout.evidenceDeadlineSeconds", 0, "it must be 1 or more"),
        ("expert", "spec.rollout.analysis.maxTailLatencyIncreasePercent", -1, "is -1"),
        ("expert", "spec.rollout.analysis.maxOverflowIncreasePercent", 101, "from 0 to 100"),
        ("expert", "spec.rollout.analysis.outcomes.minSessions", 29, "it must be 30 or more"),
        (
            "expert",
            "spec.rollout.analysis.prometheus",
            [{"name": "errors", "query": "up"}],
            "spec.rollout.analysis.prometheus[0].maxIncreasePercent is missing",
        ),
        ("gate", "spec.drift", {}, "spec.drift has none of baselines, minExpertsInUsePercent"),
        ("gate", "spec.drift", {"maxOverflowPercent": 0}, "maxOverflowPercent is 0"),
        ("gate", "spec.drift", {**RECORDED, "windowRows": 9}, "windowRows is 9; it must be 256"),
        ("gate", "spec.drift", {**RECORDED, "maxPsiPercent": 0}, "maxPsiPercent is 0"),
        ("gate", "spec.drift", {**RECORDED, "onDrift": "Panic"}, "one of Report, Pause, RollBack"),
        (
            "gate",
            "spec.drift",
            recorded({"layer": 0, "effectivePairs": 9, "pairs": [1, 2, 3]}),
            "baselines[0].layers[0].pairs has 3 numbers; spec.experts has 2",
        ),
        (
            "gate",
            "spec.drift",
            recorded({"layer": 0, "effectivePairs": 9, "pairs": [0, 0]}),
            "layers[0].pairs must be counts, one of them above 0",
        ),
        (
            "gate",
            "spec.drift",
            recorded({"layer": 0, "pairs": [1, 2]}),
            "layers[0].effectivePairs is missing",
        ),
        (
            "gate",
            "spec.drift",
            recorded(*[{"layer": 0, "effectivePairs": 9, "pairs": [1, 2]}] * 2),
            "baselines[0].layers[1] is of the same rows as one before it",
        ),
        ("gate", "spec.experts", [{}], "spec.experts[0].id is missing"),
        ("gate", "spec.experts", [{"id": "e0", "versions": [2]}], "versions[0] is 2"),
        ("mixture", "spec.rollouts.maxConcurrent", 0, "a whole number from 1 to 100"),
        ("gate", "spec.policy", None, "spec.policy is missing"),
        ("gate", "spec.policy.topK", 3, "spec.policy.topK is 3; there are 2 experts"),
        ("gate", "spec.policy.topK", 0, "spec.policy.topK is 0"),
        ("gate", "spec.policy.type", "Coin", "spec.policy.type is 'Coin'; it must be one of TopK"),
        ("gate", "spec.policy.noise", {"seed": 1}, "spec.policy.noise is for NoisyTopK"),
        (
            "gate",
            "spec.policy.contexts",
            {"bound": "1", "known": [{"name": "a", "biases": [{"id": "e9", "bias": "1"}]}]},
            "spec.policy.contexts.known of 'a' has a bias for 'e9'; the gate lists e0, e1",
        ),
        ("override", "spec.action", "Restart", "one of Serve, Pause, Promote, Abort, Retry"),
        ("override", "spec.version", None, "spec.version is missing"),
        ("override", "spec.insteadOf", None, "spec.insteadOf is missing"),
        ("override", "spec.targetRef", "e0", "spec.targetRef is 'e0'; it must be an object"),
        ("override", "metadata.name", None, "metadata.name is missing"),
    ],
)
def test_a_mistake_is_named(kind: str, path: str, value: Any, words: str) -> None:
    read, good = READERS[kind]
    read(good)
    with pytest.raises(InvalidDocument) as raised:
        read(changed(good, path, value))
    assert words in str(raised.value)


def test_the_policy_of_a_gate_is_what_the_table_says_of_its_version() -> None:
    policy = {"type": "Switch", "topK": 1, "capacityFactor": "1.5", "overflow": "Residual"}
    read = GateSpec.from_body(changed(gate(["e0", "e1"]), "spec.policy", policy))
    assert read.variant.to_dict()["policy"] == policy


def test_a_baseline_is_shares_and_how_much_they_are_worth() -> None:
    read = GateSpec.from_body(changed(gate(["e0", "e1"]), "spec.drift", RECORDED)).drift
    assert read is not None
    assert read.baselines == {sha("gate", "g1"): {(0, ""): Spread((1 / 3, 2 / 3), 9.0)}}
    assert (read.window_rows, read.max_psi_percent, read.on_drift) == (65_536, 25, OnAlarm.REPORT)
    assert (read.min_experts_percent, read.max_overflow_percent) == (None, None)


def test_a_baseline_of_another_version_may_be_of_other_experts() -> None:
    other = recorded({"layer": 0, "effectivePairs": 9, "pairs": [1, 2, 3]})
    other["baselines"][0]["sha256"] = sha("gate", "g0")
    assert GateSpec.from_body(changed(gate(["e0", "e1"]), "spec.drift", other)).drift is not None


def test_promote_needs_the_revision_that_was_seen() -> None:
    with pytest.raises(InvalidDocument, match=r"spec\.revision is missing"):
        OverrideSpec.from_body(override("o", "e0", "Promote"))


def test_what_is_not_set_is_as_the_custom_resource_says() -> None:
    read = MixtureSpec.from_body(mixture())
    assert (read.numerics, read.trunk_sha256) == (Numerics.EXACT, "")
    assert (read.routers.replicas, read.routers.service) == (2, ServiceType.CLUSTER_IP)
    assert (read.failover.ladder, read.failover.max_degraded_percent) == (LADDER, 50)
    assert read.max_concurrent == 4
    assert GateSpec.from_body(gate(["e0"])).accepts == {}
    body = changed(expert("e0"), "spec.rollout", None)
    bare = ExpertSpec.from_body(changed(body, "spec.role", None))
    assert (bare.role, bare.replicas, bare.backup) == (Role.ROUTED, 1, "")
    assert bare.rollout.steps == (Step(5, 10), Step(25, 10), Step(50, 10), Step(100, 10))
    assert (bare.rollout.min_requests, bare.rollout.progress_deadline_s) == (20, 600)


def test_evidence_is_as_the_custom_resource_says_where_it_is_not_set() -> None:
    bare = ExpertSpec.from_body(changed(expert("e0"), "spec.rollout", None))
    strategy = bare.rollout
    assert (strategy.evidence_deadline_s, strategy.shadow_percent) == (3600, 0)
    assert strategy.limits.max_tail_latency_increase_percent == 400
    assert strategy.limits.max_overflow_increase_percent == 10
    assert (strategy.outcomes, strategy.queries) == (OutcomeLimits(5.0, 30), ())
    read = MixtureSpec.from_body(mixture(evaluation=GOLDEN))
    assert read.evaluation == Evaluation("file:///golden", "7" * 64, 1.0, {})
    assert (read.trunk_uri, read.prometheus, bare.evaluation) == ("", "", None)


def test_what_evidence_is_asked_for_is_read() -> None:
    slices = [{"name": "code", "maxLossIncrease": "0.25%"}]
    read = ExpertSpec.from_body(
        changed(
            expert("e0", evaluation={**GOLDEN, "maxLossIncrease": "2%", "slices": slices}),
            "spec.rollout.analysis",
            {"prometheus": [{"name": "errors", "query": "up", "maxIncreasePercent": 5}]},
        )
    )
    assert read.evaluation == Evaluation("file:///golden", "7" * 64, 2.0, {"code": 0.25})
    assert read.rollout.queries == (Query("errors", "up", "up", 5),)


def test_a_part_of_failover_keeps_the_rest_as_it_is() -> None:
    read = MixtureSpec.from_body(mixture(failover={"ladder": ["Replica", "Residual"]}))
    assert read.failover.ladder == (Rung.REPLICA, Rung.RESIDUAL)
    assert read.failover.max_degraded_percent == 50


def test_an_override_reads_what_its_action_needs() -> None:
    read = OverrideSpec.from_body(override("o", "e0", "Abort", revision=3, step=0, reason="bad"))
    assert (read.action, read.revision, read.step) == (Action.ABORT, 3, 0)
    held = OverrideSpec.from_body(override("o", "e0", "Pause", insteadOf="v2"))
    assert (held.instead_of, held.revision, held.step) == ("v2", 0, None)
