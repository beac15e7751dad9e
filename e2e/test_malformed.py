"""Bad input on a real cluster: refused with the field and what is right, or a condition."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import yaml

from e2e.stage.kube import Body, Kube, KubectlError, condition, wait_for
from e2e.stage.restore import restore
from e2e.stage.tiny import Tiny
from examples.tiny.publish import SERVE

SHA = "a" * 64


@pytest.fixture(scope="module")
def tiny(kube: Kube) -> Tiny:
    """The mixture, brought back once: what is refused changes nothing."""
    tiny = Tiny(kube)
    restore(tiny)
    return tiny


def manifest(name: str) -> Body:
    body: Body = yaml.safe_load((SERVE / f"{name}.yaml").read_text())
    return body


def changed(name: str, path: str, value: Any) -> Body:
    """Return a manifest of the example with one field set; `None` removes it."""
    body = copy.deepcopy(manifest(name))
    *parents, last = path.split(".")
    place: Any = body
    for key in parents:
        place = place.setdefault(key, {}) if not isinstance(place, list) else place[int(key)]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return body


def override(**spec: Any) -> Body:
    target = {"targetRef": {"kind": "Expert", "name": "tiny-e3"}}
    return {
        "apiVersion": "moeops.dev/v1alpha1",
        "kind": "Override",
        "metadata": {"name": "bad"},
        "spec": {**target, **spec},
    }


REFUSED: tuple[tuple[str, str, Any, str, str], ...] = (
    ("mixture", "spec.hiddenSize", 0, "spec.hiddenSize", "greater than or equal to 1"),
    ("mixture", "spec.hiddenSize", 97, "spec.hiddenSize", "immutable"),
    ("mixture", "spec.hiddenSize", "wide", "spec.hiddenSize", "must be of type integer"),
    ("mixture", "spec.layers", 5, "spec.layers", "immutable"),
    ("mixture", "spec.layers", None, "spec.layers", "Required value"),
    ("mixture", "spec.dtype", "Float64", "spec.dtype", '"Float32", "BFloat16", "Float16"'),
    ("mixture", "spec.trunk.sha256", "abc", "spec.trunk.sha256", "[0-9a-f]{64}"),
    ("mixture", "spec.numerics", "Roughly", "spec.numerics", '"Exact", "Fast"'),
    ("mixture", "spec.routers.replicas", -1, "spec.routers.replicas", "greater than or equal"),
    ("mixture", "spec.routers.service.type", "Magic", "service.type", '"NodePort"'),
    (
        "mixture",
        "spec.failover.maxDegradedPercent",
        101,
        "maxDegradedPercent",
        "less than or equal",
    ),
    ("mixture", "spec.failover.ladder", [], "spec.failover.ladder", "at least 1"),
    ("mixture", "spec.failover.ladder", ["Prayer"], "spec.failover.ladder", '"Replica"'),
    ("mixture", "spec.failover.ladder", ["Dense", "Dense"], "ladder", "Duplicate value"),
    ("mixture", "spec.workers.env", [{"name": "a b", "value": ""}], "env[0].name", "should match"),
    ("mixture", "spec.workers.hostNetwork", True, "spec.workers.hostNetwork", "unknown field"),
    ("mixture", "metadata.name", "m" * 51, "metadata.name", "at most 50"),
    ("e3", "spec.expertId", "e9", "spec.expertId", "immutable"),
    ("e3", "spec.expertId", "E 3", "spec.expertId", "should match"),
    ("e3", "spec.mixtureRef.name", "other", "spec.mixtureRef", "immutable"),
    ("e3", "spec.role", "Boss", "spec.role", '"Routed", "Dense"'),
    ("e3", "spec.layers", [], "spec.layers", "at least 1"),
    ("e3", "spec.layers", [1, 1], "spec.layers", "Duplicate value"),
    ("e3", "spec.layers", [-1], "spec.layers[0]", "greater than or equal to 0"),
    ("e3", "spec.version", "v 2", "spec.version", "should match"),
    ("e3", "spec.artifact.sha256", SHA, "spec.artifact.sha256", "exactly one artifact"),
    ("e3", "spec.artifact.sha256", "A" * 64, "spec.artifact.sha256", "should match"),
    ("e3", "spec.artifact.uri", "s3://bucket/e3", "spec.artifact.uri", "file:///|https?://"),
    ("e3", "spec.artifact.uri", None, "spec.artifact.uri", "Required value"),
    ("e3", "spec.replicas", -1, "spec.replicas", "greater than or equal to 0"),
    ("e3", "spec.backupExpertId", "e3", "spec.backupExpertId", "its own backup"),
    ("e3", "spec.rollout.steps", [], "spec.rollout.steps", "at least 1"),
    ("e3", "spec.rollout.steps", [{"weightPercent": 0}], "steps[0].weightPercent", "or equal to 1"),
    ("e3", "spec.rollout.minRequests", "many", "spec.rollout.minRequests", "type integer"),
    ("e3", "spec.rolout", {}, "spec.rolout", "unknown field"),
    ("gate", "spec.policy.topK", 9, "spec.policy.topK", "more than there are experts"),
    ("gate", "spec.policy.type", "Coin", "spec.policy.type", '"TopK"'),
    ("gate", "spec.experts", [], "spec.experts", "at least 1"),
    ("gate", "spec.experts", [{"id": "e0"}, {"id": "e0"}], "spec.experts[1]", "Duplicate value"),
)


@pytest.mark.parametrize(("name", "path", "value", "field", "words"), REFUSED)
def test_a_field_that_is_wrong_is_refused_by_the_api_server(
    tiny: Tiny, name: str, path: str, value: Any, field: str, words: str
) -> None:
    with pytest.raises(KubectlError) as refused:
        tiny.kube.apply_dry(changed(name, path, value))
    assert field in str(refused.value)
    assert words in str(refused.value)


def test_weights_of_steps_must_not_fall(tiny: Tiny) -> None:
    steps = [{"weightPercent": 50}, {"weightPercent": 5}]
    with pytest.raises(KubectlError, match="must not fall"):
        tiny.kube.apply_dry(changed("e3", "spec.rollout.steps", steps))


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"action": "Undo"}, '"Serve", "Pause", "Promote", "Abort", "Retry"'),
        ({"action": "Serve", "version": "v1"}, "Serve needs version and insteadOf"),
        ({"action": "Pause"}, "Pause needs insteadOf"),
        ({"action": "Promote"}, "need revision"),
        ({"action": "Retry", "revision": 0}, "greater than or equal to 1"),
        ({"action": "Abort", "revision": 1, "targetRef": {"kind": "Pod", "name": "x"}}, '"Expert"'),
    ],
)
def test_an_override_that_says_too_little_is_refused(tiny: Tiny, spec: Body, words: str) -> None:
    with pytest.raises(KubectlError) as refused:
        tiny.kube.apply_dry(override(**spec))
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mixtureRef": {"name": "nowhere"}}, "nowhere"),
        ({"expertId": "e3"}, "tiny-e3"),
        ({"layers": [0, 7]}, "7"),
        ({"backupExpertId": "e99"}, "e99"),
    ],
    ids=["no such mixture", "expert id taken", "layer past the end", "no such backup"],
)
def test_what_only_other_objects_show_ends_as_a_condition(
    tiny: Tiny, change: Body, words: str
) -> None:
    body = manifest("e3")
    body["metadata"]["name"] = "tiny-odd"
    body["spec"] |= {"expertId": "odd", "replicas": 0, **change}
    served = rows_of_others(tiny)
    tiny.kube.apply(body)
    try:
        said = wait_for(
            "a condition names it",
            lambda: (
                [
                    c["message"]
                    for c in tiny.expert("tiny-odd").get("status", {}).get("conditions", [])
                    if words in c["message"]
                ]
                or None
            ),
            30,
        )
        assert condition(tiny.expert("tiny-odd"), "Ready")["status"] != "True", said
        assert rows_of_others(tiny) == served
        tiny.kube.moe("pause", "tiny-odd")
        assert decisions(tiny, "tiny-odd")
    finally:
        tiny.kube.run("annotate", "expert", "tiny-odd", "moeops.dev/delete-anyway=true")
        tiny.kube.delete("expert", "tiny-odd")
    wait_for("its Override goes with it", lambda: not decisions(tiny, "tiny-odd"), 60)


def decisions(tiny: Tiny, expert: str) -> list[Body]:
    """Return the Overrides of an Expert."""
    overrides = tiny.kube.list("override")
    return [body for body in overrides if body["spec"]["targetRef"]["name"] == expert]


def rows_of_others(tiny: Tiny) -> list[Body]:
    """Return what the table says of all experts but the odd one."""
    return [row for row in tiny.kube.table("tiny")["experts"] if row["name"] != "tiny-odd"]


def test_what_the_table_names_cannot_be_deleted_by_mistake(tiny: Tiny) -> None:
    for kind, name in (("expert", "tiny-e3"), ("gate", "tiny-gate")):
        with pytest.raises(KubectlError, match=r"moeops.dev/delete-anyway"):
            tiny.kube.delete(kind, name)
        assert tiny.kube.get(kind, name) is not None
