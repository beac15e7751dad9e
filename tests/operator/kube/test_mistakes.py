"""Every mistake that one object can hold is refused by the API server, with field and remedy.

Creating is tried without effect, with strict field validation, as `kubectl` does it.
"""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import Any
from urllib.error import HTTPError

import pytest

from moe_core.document import Reader
from moe_core.parts import head_of, split
from moe_core.policy import Kind, Policy
from moe_core.rollout import Outcome, Rollout, Version, WeightSince
from moe_core.rows import GateRow, GateVariant
from moe_core.table import Failover, Table
from tests.kube.server import KubeServer
from tests.operator.engine.bodies import expert, gate, mixture, override, sha

Body = dict[str, Any]
PLURALS = {"Mixture": "mixtures", "Expert": "experts", "Gate": "gates", "Override": "overrides"}
GOOD: dict[str, Body] = {
    "mixture": mixture(),
    "expert": expert("e0"),
    "dense": expert("dense", role="Dense"),
    "gate": gate("e0", "e1"),
    "serve": override("o", "tiny-e0", "Serve", version="v1", insteadOf="v2"),
    "pause": override("o", "tiny-e0", "Pause", insteadOf="v2"),
    "abort": override("o", "tiny-e0", "Abort", revision=2, step=1),
}
FULL: dict[str, Body] = {
    "mixture": mixture(
        numerics="Fast",
        trunk={"sha256": sha("7")},
        workers={
            "image": "worker:1",
            "imagePullSecrets": [{"name": "pull"}],
            "resources": {
                "requests": {"cpu": 1, "memory": "1Gi", "nvidia.com/gpu": 1},
                "limits": {"cpu": "1500m", "memory": "1024Mi", "nvidia.com/gpu": 1},
            },
            "resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "one-gpu"}],
            "env": [{"name": "A", "value": "b"}],
            "volumeClaims": [{"claimName": "weights", "mountPath": "/weights"}],
            "nodeSelector": {"gpu": "yes"},
            "tolerations": [
                {"operator": "Exists"},
                {"key": "gpu", "value": "yes", "effect": "NoExecute", "tolerationSeconds": 3},
            ],
            "priorityClassName": "high",
            "runtimeClassName": "nvidia",
        },
        routers={"replicas": 3, "service": {"type": "NodePort", "nodePort": 30700}},
        networkPolicy={
            "clients": [
                {"namespaceSelector": {"matchLabels": {"team": "apps"}}, "podSelector": {}},
                {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}},
            ],
            "metrics": [{"namespaceSelector": {"matchLabels": {"metrics": "yes"}}}],
        },
        tenants=[
            {"name": "team-a", "weight": 3, "rowsPerSecond": 100, "burstRows": 200},
            {"name": "team-b", "rowsInFlight": 64},
        ],
        rollouts={"maxConcurrent": 2},
        failover={"ladder": ["Replica", "Stable", "Residual"], "maxDegradedPercent": 10},
    ),
    "expert": expert(
        "e0",
        role="Routed",
        replicas=3,
        backupExpertId="e1",
        rollout={
            "steps": [{"weightPercent": 5, "pauseSeconds": 0}, {"weightPercent": 5}],
            "minRequests": 0,
            "analysis": {
                "maxErrorPercent": 0,
                "maxLatencyIncreasePercent": 0,
                "maxNormIncreasePercent": 1,
                "maxTailLatencyIncreasePercent": 0,
                "maxOverflowIncreasePercent": 0,
            },
            "progressDeadlineSeconds": 1,
            "scaleDownDelaySeconds": 0,
        },
        autoscaling={
            "minReplicas": 0,
            "maxReplicas": 2,
            "onCold": "Wait",
            "targetQueueDelayMilliseconds": 5,
            "stabilizationWindowSeconds": {"up": 0, "down": 0},
            "panicWindowSeconds": 5,
        },
    ),
}
FULL["gate"] = copy.deepcopy(GOOD["gate"])
FULL["gate"]["spec"]["layers"] = [0]
FULL["gate"]["spec"]["experts"][0]["versions"] = ["v1", "v2"]
FULL["gate"]["spec"]["policy"] = {
    "type": "GroupLimitedTopK",
    "topK": 1,
    "weights": "AsScored",
    "bias": "Selection",
    "scoring": "Sigmoid",
    "groups": {"count": 2, "chosen": 1, "score": "Best"},
    "routedScaling": "2.5",
    "capacityFactor": "1.25",
    "overflow": "NextBest",
    "contexts": {
        "bound": "4",
        "known": [{"name": "legal", "biases": [{"id": "e0", "bias": "-2.5"}]}],
    },
}
BASELINE: Body = {
    "version": "v1",
    "sha256": sha("9"),
    "layers": [{"layer": 0, "context": "legal", "effectivePairs": 1, "pairs": [0, 5]}],
}
FULL["gate"]["spec"]["drift"] = {
    "baselines": [BASELINE],
    "windowRows": 256,
    "maxPsiPercent": 1,
    "minExpertsInUsePercent": 1,
    "maxOverflowPercent": 1,
    "onDrift": "RollBack",
}
FULL["noisy gate"] = copy.deepcopy(GOOD["gate"])
FULL["noisy gate"]["spec"]["policy"] = {"type": "NoisyTopK", "topK": 2, "noise": {"seed": 7}}


def try_out(server: KubeServer, namespace: str, body: Body) -> Body:
    """Create an object without effect. Raises HTTPError."""
    own = {**body, "metadata": {**body["metadata"], "namespace": namespace}}
    path = f"/apis/moeops.dev/v1alpha1/namespaces/{namespace}/{PLURALS[body['kind']]}"
    answer: Body = server.request("POST", f"{path}?dryRun=All&fieldValidation=Strict", own)
    return answer


def changed(name: str, path: str, value: Any) -> Body:
    """Return a good object with one field set; None removes it."""
    body = copy.deepcopy(GOOD[name])
    *parents, last = path.split(".")
    place: Any = body
    for key in parents:
        place = place[int(key)] if isinstance(place, list) else place.setdefault(key, {})
    if value is None:
        del place[last]
    else:
        place[last] = value
    return body


@pytest.mark.parametrize("name", FULL)
def test_every_field_that_there_is_can_be_set_and_stays(
    installed: KubeServer, namespace: str, name: str
) -> None:
    stored = try_out(installed, namespace, FULL[name])
    assert holds(stored["spec"], FULL[name]["spec"])


def holds(stored: Any, written: Any) -> bool:
    """Return whether all that was written is stored; defaults may have come in addition."""
    if isinstance(written, dict):
        return all(holds(stored[key], value) for key, value in written.items())
    if isinstance(written, list):
        return len(stored) == len(written) and all(map(holds, stored, written))
    return bool(stored == written)


WORKERS, STEPS, SCALING = "spec.workers", "spec.rollout.steps", "spec.autoscaling"
BUSY = {"maxReplicas": 4, "targetUtilizationPercent": 60}
ENV = [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]
CLAIM = {"claimName": "c", "mountPath": "/a"}

POLICY = "spec.policy"
LIMITED = {"type": "GroupLimitedTopK", "topK": 2, "groups": {"count": 1, "chosen": 1}}
NOISY = {"type": "NoisyTopK", "topK": 2}
CHOICE = {"type": "ExpertChoice", "topK": 2}
LEGAL = {"name": "legal", "biases": [{"id": "e0", "bias": "1"}]}

MISTAKES: tuple[tuple[str, str, Any, str], ...] = (
    ("mixture", "spec", None, "spec: Required value"),
    ("mixture", "spec.hiddenSize", None, "spec.hiddenSize: Required value"),
    ("mixture", "spec.hiddenSize", 0, "greater than or equal to 1"),
    ("mixture", "spec.hiddenSize", 65537, "less than or equal to 65536"),
    ("mixture", "spec.hiddenSize", "64", "must be of type integer"),
    ("mixture", "spec.hiddenSize", 1.5, "must be of type integer"),
    ("mixture", "spec.layers", 0, "greater than or equal to 1"),
    ("mixture", "spec.layers", 2000, "less than or equal to 1024"),
    ("mixture", "spec.dtype", "float32", '"Float32", "BFloat16", "Float16"'),
    ("mixture", "spec.dtype", None, "spec.dtype: Required value"),
    ("mixture", "spec.numerics", "exact", '"Exact", "Fast"'),
    ("mixture", "spec.trunk.sha256", "F" * 64, "[0-9a-f]{64}"),
    ("mixture", "spec.rollouts.maxConcurrent", 0, "greater than or equal to 1"),
    ("mixture", "spec.rollouts.maxConcurrent", 101, "less than or equal to 100"),
    ("mixture", "spec.rollouts.maxConcurent", 1, 'unknown field "spec.rollouts.maxConcurent"'),
    ("mixture", "spec.failover.ladder", [], "at least 1"),
    ("mixture", "spec.failover.ladder", ["Pray"], '"Replica"'),
    ("mixture", "spec.failover.ladder", ["Dense", "Dense"], "Duplicate value"),
    ("mixture", "spec.failover.ladder", ["Residual", "Dense"], "Residual must be the last"),
    ("mixture", "spec.failover.maxDegradedPercent", 101, "less than or equal to 100"),
    ("mixture", "spec.routers.replicas", -1, "greater than or equal to 0"),
    ("mixture", "spec.routers.replicas", 65, "less than or equal to 64"),
    ("mixture", "spec.routers.service.type", "Ingress", '"NodePort"'),
    ("mixture", "spec.routers.service", {"nodePort": 30700}, "nodePort needs type NodePort"),
    ("mixture", f"{WORKERS}.hostNetwork", True, "unknown field"),
    ("mixture", f"{WORKERS}.serviceAccountName", "admin", "unknown field"),
    ("mixture", f"{WORKERS}.image", "", "spec.workers.image"),
    ("mixture", f"{WORKERS}.image", "a b", "spec.workers.image"),
    ("mixture", f"{WORKERS}.env", ENV, "Duplicate value"),
    ("mixture", f"{WORKERS}.env", [{"name": "A B", "value": ""}], "should match"),
    ("mixture", f"{WORKERS}.env", [{"name": "A"}], "value: Required value"),
    ("mixture", f"{WORKERS}.env", [{"name": "A", "value": 1}], "must be of type string"),
    ("mixture", f"{WORKERS}.env", [{"name": "A", "valueFrom": {}}], "unknown field"),
    ("mixture", f"{WORKERS}.volumeClaims", [{"claimName": "c"}], "mountPath: Required"),
    ("mixture", f"{WORKERS}.volumeClaims", [{**CLAIM, "mountPath": "a"}], "should match"),
    ("mixture", f"{WORKERS}.volumeClaims", [{**CLAIM, "mountPath": "/a:b"}], "should match"),
    ("mixture", f"{WORKERS}.volumeClaims", [CLAIM, CLAIM], "Duplicate value"),
    ("mixture", f"{WORKERS}.resources.requests", {"cpu": "a lot"}, "should match"),
    ("mixture", f"{WORKERS}.resources.requests", {"gpu": 1}, "such as nvidia.com/gpu"),
    ("mixture", f"{WORKERS}.resources.claims", [], "unknown field"),
    (
        "mixture",
        f"{WORKERS}.resources",
        {"requests": {"memory": "2Gi"}, "limits": {"memory": "1500M"}},
        "requests must not be more than limits",
    ),
    (
        "mixture",
        f"{WORKERS}.resources",
        {"requests": {"nvidia.com/gpu": 1}},
        "needs a limit that equals its request",
    ),
    (
        "mixture",
        f"{WORKERS}.resourceClaims",
        [{"name": "gpu", "resourceClaimName": "shared"}],
        "unknown field",
    ),
    ("mixture", f"{WORKERS}.resourceClaims", [{"name": "gpu"}], "resourceClaimTemplateName"),
    ("mixture", "spec.tenants", [{"weight": 2}], "name: Required value"),
    ("mixture", "spec.tenants", [{"name": "Team A"}], "should match"),
    ("mixture", "spec.tenants", [{"name": "a", "rowsPerSecond": 0}], "greater than or equal to 1"),
    ("mixture", "spec.tenants", [{"name": "a", "burstRows": 9}], "burstRows needs rowsPerSecond"),
    ("mixture", "spec.tenants", [{"name": "a"}, {"name": "a"}], "Duplicate value"),
    ("mixture", "spec.networkPolicy", "Enabled", "must be of type object"),
    ("mixture", "spec.networkPolicy.clients", [{}], "should have at least 1 properties"),
    (
        "mixture",
        "spec.networkPolicy.clients",
        [{"ipBlock": {"cidr": "10.0.0.0"}}],
        "cidr must be a network, such as 10.0.0.0/8",
    ),
    (
        "mixture",
        "spec.networkPolicy.metrics",
        [{"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}}],
        "ipBlock goes with no selector",
    ),
    ("mixture", f"{WORKERS}.tolerations", [{"effect": "Never"}], '"NoSchedule"'),
    ("mixture", f"{WORKERS}.tolerations", [{"value": "a"}], "needs operator Exists"),
    (
        "mixture",
        f"{WORKERS}.tolerations",
        [{"key": "a", "operator": "Exists", "value": "b"}],
        "value is for operator Equal",
    ),
    (
        "mixture",
        f"{WORKERS}.tolerations",
        [{"key": "a", "effect": "NoSchedule", "tolerationSeconds": 3}],
        "tolerationSeconds is for effect NoExecute",
    ),
    ("mixture", f"{WORKERS}.imagePullSecrets", [{}], "name: Required value"),
    ("mixture", "metadata.name", "m" * 51, "at most 50 characters"),
    ("mixture", "metadata.name", "8x7b", "from a letter on"),
    ("mixture", "metadata.name", "a.b", "from a letter on"),
    ("mixture", "spce", {}, 'unknown field "spce"'),
    ("expert", "spec.mixtureRef", None, "spec.mixtureRef: Required value"),
    ("expert", "spec.mixtureRef.name", "", "spec.mixtureRef.name"),
    ("expert", "spec.mixtureRef.name", "Tiny", "should match"),
    ("expert", "spec.mixtureRef.namespace", "other", "unknown field"),
    ("expert", "spec.expertId", None, "spec.expertId: Required value"),
    ("expert", "spec.expertId", "E 0", "should match"),
    ("expert", "spec.expertId", "e" * 51, "may not be more than 50"),
    ("expert", "spec.role", "Boss", '"Routed", "Dense"'),
    ("expert", "spec.role", "Shared", '"Routed", "Dense"'),
    ("expert", "spec.layers", None, "spec.layers: Required value"),
    ("expert", "spec.layers", [], "at least 1"),
    ("expert", "spec.layers", [0, 0], "Duplicate value"),
    ("expert", "spec.layers", [-1], "greater than or equal to 0"),
    ("expert", "spec.layers", ["0"], "must be of type integer"),
    ("expert", "spec.version", None, "spec.version: Required value"),
    ("expert", "spec.version", "", "spec.version"),
    ("expert", "spec.version", "v 2", "should match"),
    ("expert", "spec.version", 2, "must be of type string"),
    ("expert", "spec.version", "v" * 64, "may not be more than 63"),
    ("expert", "spec.artifact", None, "spec.artifact: Required value"),
    ("expert", "spec.artifact.uri", None, "spec.artifact.uri: Required value"),
    ("expert", "spec.artifact.uri", "s3://bucket/e0", "file:///|https?://"),
    ("expert", "spec.artifact.uri", "file:///", "file:///|https?://"),
    ("expert", "spec.artifact.sha256", "a" * 63, "[0-9a-f]{64}"),
    ("expert", "spec.artifact.sha256", "sha256:" + "a" * 64, "[0-9a-f]{64}"),
    ("expert", "spec.artifact.sha256", None, "spec.artifact.sha256: Required value"),
    ("expert", "spec.replicas", -1, "greater than or equal to 0"),
    ("expert", "spec.replicas", 1025, "less than or equal to 1024"),
    ("expert", "spec.replicas", "2", "must be of type integer"),
    ("expert", SCALING, {"maxReplicas": 4}, "give one target"),
    ("expert", SCALING, {**BUSY, "targetQueueDelayMilliseconds": 5}, "give one target"),
    ("expert", SCALING, {"targetUtilizationPercent": 60}, "maxReplicas: Required value"),
    ("expert", SCALING, {**BUSY, "minReplicas": 5}, "must not be more than maxReplicas"),
    ("expert", SCALING, {**BUSY, "minReplicas": -1}, "greater than or equal to 0"),
    ("dense", SCALING, {**BUSY, "minReplicas": 0}, "a dense expert is 1 or more"),
    ("expert", SCALING, {**BUSY, "onCold": "Wait"}, "onCold: Wait needs minReplicas: 0"),
    ("expert", SCALING, {**BUSY, "onCold": "Sleep"}, "Unsupported value"),
    ("expert", SCALING, {**BUSY, "maxReplicas": 1025}, "less than or equal to 1024"),
    ("expert", SCALING, {**BUSY, "targetUtilizationPercent": 96}, "less than or equal to 95"),
    ("expert", SCALING, {**BUSY, "targetUtilizationPercent": "60%"}, "must be of type integer"),
    (
        "expert",
        SCALING,
        {"maxReplicas": 4, "targetQueueDelayMilliseconds": 0},
        "greater than or equal to 1",
    ),
    ("expert", SCALING, {**BUSY, "stabilizationWindowSeconds": 30}, "must be of type object"),
    (
        "expert",
        SCALING,
        {**BUSY, "stabilizationWindowSeconds": {"down": 3601}},
        "less than or equal to 3600",
    ),
    ("expert", SCALING, {**BUSY, "panicWindowSeconds": 4}, "greater than or equal to 5"),
    ("expert", SCALING, {**BUSY, "target": 60}, "unknown field"),
    ("expert", "spec.backupExpertId", "e0", "its own backup"),
    ("expert", "spec.backupExpertId", "", "should match"),
    ("expert", STEPS, [], "at least 1"),
    ("expert", STEPS, [{}], "weightPercent: Required value"),
    ("expert", STEPS, [{"weightPercent": 0}], "greater than or equal to 1"),
    ("expert", STEPS, [{"weightPercent": 101}], "less than or equal to 100"),
    ("expert", STEPS, [{"weightPercent": "5%"}], "must be of type integer"),
    ("expert", STEPS, [{"weightPercent": 50}, {"weightPercent": 5}], "must not fall"),
    ("expert", STEPS, [{"weightPercent": 5}] * 21, "at most 20"),
    ("expert", STEPS, [{"weightPercent": 5, "pause": "1m"}], "unknown field"),
    ("expert", f"{STEPS}", [{"weightPercent": 5, "pauseSeconds": -1}], "or equal to 0"),
    ("expert", "spec.rollout.minRequests", -1, "greater than or equal to 0"),
    ("expert", "spec.rollout.progressDeadlineSeconds", 0, "greater than or equal to 1"),
    ("expert", "spec.rollout.scaleDownDelaySeconds", "30s", "must be of type integer"),
    ("expert", "spec.rollout.analysis.maxErrorPercent", 101, "less than or equal to 100"),
    ("expert", "spec.rollout.analysis.maxNormIncreasePercent", 0, "or equal to 1"),
    ("expert", "spec.rollout.analysis.maxErrors", 1, "unknown field"),
    ("expert", "spec.rolout", {}, 'unknown field "spec.rolout"'),
    ("expert", "spec.template", {}, "unknown field"),
    ("expert", "metadata.name", "e" * 51, "at most 50 characters"),
    ("expert", "metadata.name", "e.0", "from a letter on"),
    ("gate", "spec.mixtureRef.name", "", "spec.mixtureRef.name"),
    ("gate", "spec.version", None, "spec.version: Required value"),
    ("gate", "spec.artifact.sha256", "g" * 64, "[0-9a-f]{64}"),
    ("gate", "spec.experts", None, "spec.experts: Required value"),
    ("gate", "spec.experts", [], "at least 1"),
    ("gate", "spec.experts", ["e0"], "must be of type object"),
    ("gate", "spec.experts", [{"id": "e0"}, {"id": "e0"}], "Duplicate value"),
    ("gate", "spec.experts", [{"id": "E0"}], "should match"),
    ("gate", "spec.experts.0.versions", ["v 1"], "should match"),
    ("gate", "spec.experts.0.versions", ["v1", "v1"], "Duplicate value"),
    ("gate", "spec.experts.0.versions", "v1", "must be of type array"),
    ("gate", "spec.experts.0.versions", [f"v{n}" for n in range(33)], "at most 32"),
    ("gate", "spec.experts.0.version", "v1", "unknown field"),
    ("gate", "spec.layers", [0, 0], "Duplicate value"),
    ("gate", "spec.layers", [1024], "less than or equal to 1023"),
    ("gate", "spec.policy", None, "spec.policy: Required value"),
    ("gate", "spec.policy.type", "Coin", '"TopK"'),
    ("gate", "spec.policy.topK", 3, "policy.topK is more than there are experts"),
    ("gate", "spec.policy.topK", 0, "greater than or equal to 1"),
    ("gate", "spec.policy.k", 2, "unknown field"),
    ("gate", POLICY, {"type": "Switch", "topK": 2}, "topK of Switch is 1"),
    ("gate", POLICY, {**NOISY, "weights": "Renormalised"}, "SoftmaxOfChosen of NoisyTopK"),
    ("gate", POLICY, {**CHOICE, "weights": "Renormalised"}, "AsScored of Switch"),
    ("gate", POLICY, {**LIMITED, "weights": "SoftmaxOfChosen"}, "of GroupLimitedTopK"),
    ("gate", "spec.policy.weights", "Halved", '"Renormalised", "AsScored"'),
    ("gate", POLICY, {"type": "GroupLimitedTopK", "topK": 2}, "which needs them"),
    ("gate", "spec.policy.groups", {"count": 1, "chosen": 1}, "groups are of GroupLimitedTopK"),
    ("gate", POLICY, {**LIMITED, "groups": {"count": 2}}, "chosen: Required value"),
    ("gate", POLICY, {**LIMITED, "groups": {"count": 1, "chosen": 2}}, "than there are groups"),
    ("gate", POLICY, {**LIMITED, "groups": {"count": 3, "chosen": 3}}, "groups of equal size"),
    ("gate", POLICY, {**LIMITED, "groups": {"count": 2, "chosen": 1}}, "the chosen groups have"),
    (
        "gate",
        POLICY,
        {**LIMITED, "groups": {"count": 2, "chosen": 2, "score": "TopTwoSum"}},
        "have no best two",
    ),
    ("gate", POLICY, {**LIMITED, "routedScaling": "1001"}, "from 0 to 1000"),
    ("gate", POLICY, {**LIMITED, "routedScaling": "-1"}, "should match"),
    ("gate", POLICY, {**LIMITED, "routedScaling": 2.5}, "must be of type string"),
    ("gate", "spec.policy.scoring", "Sigmoid", "scoring is for GroupLimitedTopK"),
    ("gate", "spec.policy.routedScaling", "2.5", "routedScaling is for GroupLimitedTopK"),
    ("gate", "spec.policy.bias", "Selection", "bias Selection is for GroupLimitedTopK"),
    ("gate", "spec.policy.noise", {"seed": 1}, "noise is for NoisyTopK"),
    ("gate", POLICY, {**NOISY, "noise": {}}, "seed: Required value"),
    ("gate", POLICY, {**NOISY, "noise": {"seed": -1}}, "greater than or equal to 0"),
    ("gate", POLICY, {**CHOICE, "capacityFactor": "1"}, "ExpertChoice has no overflow"),
    ("gate", POLICY, {**CHOICE, "overflow": "Residual"}, "ExpertChoice has no overflow"),
    ("gate", "spec.policy.capacityFactor", "0", "from 0.01 to 100"),
    ("gate", "spec.policy.capacityFactor", "101", "from 0.01 to 100"),
    ("gate", "spec.policy.capacityFactor", "a lot", "should match"),
    ("gate", "spec.policy.overflow", "Drop", '"Residual", "NextBest"'),
    ("gate", "spec.policy.contexts", {"bound": "4", "known": []}, "at least 1"),
    ("gate", "spec.policy.contexts", {"known": [LEGAL]}, "bound: Required value"),
    ("gate", "spec.policy.contexts", {"bound": "101", "known": [LEGAL]}, "from 0 to 100"),
    ("gate", "spec.policy.contexts", {"bound": "4", "known": [LEGAL] * 2}, "Duplicate value"),
    (
        "gate",
        "spec.policy.contexts",
        {"bound": "4", "known": [{**LEGAL, "biases": [{"id": "e9", "bias": "1"}]}]},
        "an expert that the gate does not list",
    ),
    (
        "gate",
        "spec.policy.contexts",
        {"bound": "4", "known": [{**LEGAL, "biases": [{"id": "e0", "bias": "-101"}]}]},
        "from -100 to 100",
    ),
    ("gate", "spec.drift", {}, "nothing is looked at without"),
    ("gate", "spec.drift", {"maxPsiPercent": 10}, "nothing is looked at without"),
    ("gate", "spec.drift", {"maxOverflowPercent": 0}, "greater than or equal to 1"),
    ("gate", "spec.drift", {"minExpertsInUsePercent": 101}, "less than or equal to 100"),
    ("gate", "spec.drift.onDrift", "Panic", '"Report", "Pause", "RollBack"'),
    ("gate", "spec.drift.windowRows", 255, "greater than or equal to 256"),
    ("gate", "spec.drift.baselines", [], "at least 1"),
    ("gate", "spec.drift.baselines", [{"sha256": "b"}], "[0-9a-f]{64}"),
    ("gate", "spec.drift.baselines", [{**BASELINE, "layers": []}], "at least 1"),
    ("gate", "spec.drift.baselines", [BASELINE] * 2, "Duplicate value"),
    ("gate", "spec.drift.baselines", [{**BASELINE, "layers": [{"layer": 0}]}], "Required value"),
    ("serve", "spec.action", "Undo", '"Serve", "Pause", "Promote", "Abort", "Retry"'),
    ("serve", "spec.action", None, "spec.action: Required value"),
    ("serve", "spec.version", None, "Serve needs version and insteadOf"),
    ("serve", "spec.insteadOf", None, "Serve needs version and insteadOf"),
    ("serve", "spec.insteadOf", "v1", "version and insteadOf must differ"),
    ("serve", "spec.revision", 2, "revision and step are for Promote, Abort and Retry"),
    ("serve", "spec.targetRef", None, "spec.targetRef: Required value"),
    ("serve", "spec.targetRef.kind", "Pod", '"Expert"'),
    ("serve", "spec.targetRef.name", "", "spec.targetRef.name"),
    ("serve", "spec.until", "tomorrow", "unknown field"),
    ("pause", "spec.insteadOf", None, "Pause needs insteadOf"),
    ("pause", "spec.version", "v1", "version is for Serve"),
    ("pause", "spec.step", 1, "revision and step are for"),
    ("abort", "spec.revision", None, "need revision"),
    ("abort", "spec.revision", 0, "greater than or equal to 1"),
    ("abort", "spec.step", -1, "greater than or equal to 0"),
    ("abort", "spec.insteadOf", "v2", "insteadOf is for Serve and Pause"),
    ("abort", "spec.reason", "r" * 1025, "may not be more than 1024"),
)


@pytest.mark.parametrize(("name", "path", "value", "words"), MISTAKES)
def test_a_mistake_is_refused_and_named(
    installed: KubeServer, namespace: str, name: str, path: str, value: Any, words: str
) -> None:
    with pytest.raises(HTTPError) as refused:
        try_out(installed, namespace, changed(name, path, value))
    said = json.loads(refused.value.read())["message"]
    assert words in said, said


CHANGES: tuple[tuple[str, Body, str], ...] = (
    ("mixture", {"hiddenSize": 65}, "hiddenSize is immutable"),
    ("mixture", {"layers": 3}, "layers is immutable"),
    ("mixture", {"dtype": "BFloat16"}, "dtype is immutable"),
    ("expert", {"expertId": "e9"}, "expertId is immutable"),
    ("expert", {"role": "Dense"}, "role is immutable"),
    ("expert", {"mixtureRef": {"name": "other"}}, "mixtureRef is immutable"),
    ("expert", {"artifact": {"uri": "file:///b", "sha256": sha("b")}}, "exactly one artifact"),
    ("gate", {"mixtureRef": {"name": "other"}}, "mixtureRef is immutable"),
    ("gate", {"artifact": {"uri": "file:///b", "sha256": sha("b")}}, "exactly one artifact"),
    ("serve", {"reason": "changed"}, "an Override is immutable"),
)


@pytest.mark.parametrize(("name", "change", "words"), CHANGES)
def test_a_change_that_cannot_be_is_refused(
    installed: KubeServer, namespace: str, name: str, change: Body, words: str
) -> None:
    body = copy.deepcopy(GOOD[name])
    body["metadata"]["namespace"] = namespace
    path = f"/apis/moeops.dev/v1alpha1/namespaces/{namespace}/{PLURALS[body['kind']]}"
    stored = installed.request("POST", path, body)
    stored["spec"] |= change
    with pytest.raises(HTTPError) as refused:
        installed.request("PUT", f"{path}/{body['metadata']['name']}", stored)
    assert words in json.loads(refused.value.read())["message"]


def test_the_api_server_keeps_all_of_a_table(installed: KubeServer, namespace: str) -> None:
    """What it does not know it would drop without a word."""
    stable = GateVariant("g1", sha("9"), "file:///g", ("e0",), Policy(1), {"e0": ("v1",)})
    target = Version("g2", sha("8"), "file:///g2")
    weights = (WeightSince(3, 0), WeightSince(4, 5))
    rollout = Rollout(
        2, target, 1, "2026-01-01T00:00:00Z", Outcome.PROGRESSING, "", "salt", weights
    )
    groups = FULL["gate"]["spec"]["policy"]
    limited = Policy.read(Reader(groups, "policy"))
    candidate = GateVariant("g2", sha("8"), "file:///g2", ("e0", "e1"), limited)
    noisy = Policy(2, Kind.NOISY_TOP_K, noise_seed=7)
    previous = replace(candidate, version="g0", policy=noisy)
    row = GateRow("gate", (0,), stable, candidate, previous, (sha("7"),), rollout)
    table = Table("tiny", "", 1, 64, 2, "Float32", "", Failover(), (row,))
    meta = {"name": "tiny", "namespace": namespace}
    body = {"apiVersion": "moeops.dev/v1alpha1", "kind": "RoutingTable", "metadata": meta}
    path = f"/apis/moeops.dev/v1alpha1/namespaces/{namespace}/routingtables"
    query = "dryRun=All&fieldValidation=Strict"
    stored = installed.request("POST", f"{path}?{query}", {**body, "spec": table.to_spec()})
    assert stored["spec"] == table.to_spec()
    head = head_of(table.to_spec(), split(table.to_spec(), ()))
    stored = installed.request("POST", f"{path}?{query}", {**body, "spec": head})
    assert stored["spec"] == head
    for spec in ({**table.to_spec(), "parts": head["parts"]}, {"mixture": "tiny", "epoch": 1}):
        with pytest.raises(HTTPError) as refused:
            installed.request("POST", f"{path}?{query}", {**body, "spec": spec})
        assert "or only name the parts that do" in refused.value.read().decode()
