"""The manifests that are made of a mixture, against a file that people can read.

After a wanted change: `python -m tests.operator.plan.test_plan_manifests` writes the file anew.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from moe_operator.plan import plan_mixture
from moe_operator.render import manifest
from tests.operator.plan.bodies import evaluated, expert, gate, mixture
from tests.operator.plan.simulation import SETTINGS, Simulation

GOLDEN = Path(__file__).parent / "golden" / "manifests.yaml"
EVALUATOR = GOLDEN.with_name("evaluator.yaml")


def every_setting() -> Simulation:
    """Return a mixture that sets all that can be set, with two experts, one the other's backup."""
    sim = Simulation()
    pods = {
        "image": "registry.example/worker:2",
        "imagePullSecrets": [{"name": "pull"}],
        "resources": {
            "requests": {"cpu": "100m"},
            "limits": {"memory": "1Gi", "nvidia.com/mig-1g.10gb": 1},
        },
        "resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "one-gpu"}],
        "env": [{"name": "PYTHONPATH", "value": "/site"}, {"name": "MOE_LINK", "value": "no"}],
        "volumeClaims": [
            {"claimName": "artifacts", "mountPath": "/artifacts"},
            {"claimName": "site", "mountPath": "/site"},
        ],
        "nodeSelector": {"pool": "experts"},
        "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "priorityClassName": "serving",
        "runtimeClassName": "gvisor",
    }
    routers = {"replicas": 3, "service": {"type": "NodePort", "nodePort": 30700}}
    network = {
        "clients": [{"namespaceSelector": {"matchLabels": {"team": "apps"}}}],
        "metrics": [{"ipBlock": {"cidr": "10.0.0.0/8"}}],
    }
    sim.put("Mixture", mixture(workers=pods, routers=routers, networkPolicy=network))
    sim.put("Expert", expert("e0", replicas=2, backupExpertId="e1"))
    sim.put("Expert", expert("e1"))
    sim.put("Gate", gate(["e0", "e1"]))
    return sim


def bodies(sim: Simulation) -> list[dict[str, Any]]:
    plan = plan_mixture(sim.world(), {}, SETTINGS, sim.now)
    return [json.loads(json.dumps(m.body)) for m in plan.manifests]


def workers(sim: Simulation) -> list[dict[str, Any]]:
    return [
        body["spec"]["template"]["spec"]
        for body in bodies(sim)
        if body["metadata"]["labels"]["moeops.dev/component"] == "worker"
        and body["kind"] == "Deployment"
    ]


def test_the_manifests_are_as_written_down() -> None:
    assert bodies(every_setting()) == list(yaml.safe_load_all(GOLDEN.read_text()))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MOE_METRICS_DETAIL", "Full"),
        ("MOE_LOG_FORMAT", "json"),
        ("MOE_DEVICE", "cuda"),
        ("MOE_BATCH_ROWS", "1024"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317"),
    ],
)
def test_what_is_told_and_what_computes_is_left_to_people(name: str, value: str) -> None:
    sim = every_setting()
    left = {"name": name, "value": value}
    sim.put("Mixture", mixture(workers={"env": [left, {"name": "MOE_METRICS", "value": "x"}]}))

    for pod in workers(sim):
        (container,) = pod["containers"]
        assert left in container["env"]
        assert "MOE_METRICS" not in {item["name"] for item in container["env"]}


def evaluator() -> dict[str, Any]:
    """Return the pod that tries a new version of e0, with every setting."""
    sim = every_setting()
    fields = evaluated(maxLossIncrease="0.5%")
    pods = sim.bodies["Mixture", "tiny"]["spec"]["workers"]
    sim.put("Mixture", mixture(evaluators={**pods, "image": "registry.example/eval:2"}, **fields))
    sim.run(8).want("e0", "v2")
    for _ in range(10):
        if sim.evaluators:
            break
        sim.tick()
    (made,) = sim.evaluators.values()
    return dict(json.loads(json.dumps(made.manifest.body)))


def test_the_evaluator_is_as_written_down() -> None:
    assert evaluator() == yaml.safe_load(EVALUATOR.read_text())


def test_an_evaluator_runs_under_the_restricted_profile_and_ends() -> None:
    pod = evaluator()["spec"]
    (container,) = pod["containers"]
    context = container["securityContext"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert (pod["restartPolicy"], pod["activeDeadlineSeconds"]) == ("Never", 3600)
    assert context["allowPrivilegeEscalation"] is False
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert context["readOnlyRootFilesystem"] is True


@pytest.mark.parametrize("kind", ["worker", "router"])
def test_pods_run_under_the_restricted_profile(kind: str) -> None:
    found = [
        body["spec"]["template"]["spec"]
        for body in bodies(every_setting())
        if body["kind"] == "Deployment"
        and body["metadata"]["labels"]["moeops.dev/component"] == kind
    ]
    assert found
    for pod in found:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        volumes = [set(volume) - {"name"} for volume in pod["volumes"]]
        assert all(kind <= {"emptyDir", "persistentVolumeClaim"} for kind in volumes)
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert context["readOnlyRootFilesystem"] is True


def test_workers_have_no_token_and_no_variable_twice() -> None:
    for pod in workers(every_setting()):
        assert pod["automountServiceAccountToken"] is False
        names = [variable["name"] for variable in pod["containers"][0]["env"]]
        assert len(names) == len(set(names))


def test_a_template_is_frozen_with_its_revision() -> None:
    sim = every_setting()
    sim.run(8)
    before = workers_of(sim, "e0")
    sim.put("Mixture", mixture(workers={"image": "registry.example/worker:3"}))
    sim.run(3)
    assert workers_of(sim, "e0") == before, "what is served is not restarted"
    sim.want("e0", "v2")
    sim.run(30)
    assert workers_of(sim, "e0")["containers"][0]["image"] == "registry.example/worker:3"


def workers_of(sim: Simulation, name: str) -> dict[str, Any]:
    found = [
        d.manifest.body["spec"]["template"]["spec"]
        for d in sim.deployments.values()
        if d.labels.get("moeops.dev/expert") == name
    ]
    assert len(found) == 1
    return dict(found[0])


def test_replicas_that_somebody_else_changed_are_set_back() -> None:
    sim = every_setting()
    sim.run(8)
    deployment = next(d for name, d in sim.deployments.items() if name.startswith("e0-"))
    spec = {**deployment.manifest.body["spec"], "replicas": 7}
    deployment.manifest = manifest({**deployment.manifest.body, "spec": spec})
    sim.operate()
    assert workers_replicas(sim, "e0") == 2


def workers_replicas(sim: Simulation, name: str) -> int:
    return next(
        d.replicas for d in sim.deployments.values() if d.labels.get("moeops.dev/expert") == name
    )


if __name__ == "__main__":
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(yaml.safe_dump_all(bodies(every_setting()), sort_keys=False))
    EVALUATOR.write_text(yaml.safe_dump(evaluator(), sort_keys=False))
