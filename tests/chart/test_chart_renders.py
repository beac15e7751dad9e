"""What the chart makes: pods under the restricted profile, rights that are used, one source."""

from __future__ import annotations

import tarfile
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import yaml

from moe_operator.options import Options
from tests.chart import charts
from tests.chart.charts import CHART, MUTATING, ROOT, SYSTEM, TEAMS, Body, Values

ALL: Values = {"networkPolicy": {"create": True}, "images": {"pullSecrets": ["pull"]}}
SWITCHES: Mapping[str, tuple[str, set[str]]] = {
    "crds": ("install", {"CustomResourceDefinition"}),
    "serviceAccount": ("create", set()),
    "rbac": ("create", {"ClusterRoleBinding"}),
    "people": ("create", set()),
    "admissionPolicies": (
        "create",
        {
            f"{kind}AdmissionPolicy{more}"
            for kind in ("Validating", "Mutating")
            for more in ("", "Binding")
        },
    ),
    "podDisruptionBudget": ("create", {"PodDisruptionBudget"}),
    "priorityClasses": ("create", {"PriorityClass"}),
    "networkPolicy": ("create", {"NetworkPolicy"}),
}


def operator(bodies: Sequence[Body]) -> Body:
    deployment = charts.one(bodies, "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    found: Body = container
    return found


def env(bodies: Sequence[Body]) -> Mapping[str, str]:
    return {each["name"]: each.get("value", "") for each in operator(bodies)["env"]}


def test_lint_finds_nothing() -> None:
    for values in ({}, TEAMS):
        done = charts.helm("lint", "--strict", CHART, "--values=-", stdin=yaml.safe_dump(values))
        assert done.returncode == 0, done.stdout
        assert "[WARNING]" not in done.stdout


def test_the_versions_are_the_projects() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert (chart["version"], chart["appVersion"]) == (version, version)


@pytest.mark.parametrize("values", [{}, TEAMS, ALL], ids=["default", "namespaces", "all"])
def test_every_pod_keeps_to_the_restricted_profile(values: Values) -> None:
    pods = list(charts.pods(charts.render(values)))
    assert len(pods) == 2, "the operator's, and that of helm test"
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
            assert "memory" in container["resources"]["limits"]


def test_the_custom_resources_are_those_of_the_one_source() -> None:
    made = charts.of(charts.render(), "CustomResourceDefinition")
    wanted = charts.crds()
    assert made.keys() == wanted.keys()
    for name, crd in wanted.items():
        assert made[name]["spec"] == crd["spec"]
        annotations = made[name]["metadata"]["annotations"]
        assert annotations == crd["metadata"].get("annotations", {}) | {
            "helm.sh/resource-policy": "keep"
        }
    for crd in charts.of(
        charts.render({"crds": {"keep": False}}), "CustomResourceDefinition"
    ).values():
        assert "helm.sh/resource-policy" not in crd["metadata"].get("annotations", {})


def test_a_package_holds_the_custom_resources_themselves(tmp_path: Path) -> None:
    done = charts.helm("package", CHART, "--destination", tmp_path)
    assert done.returncode == 0, done.stderr
    (file,) = tmp_path.glob("moeops-*.tgz")
    with tarfile.open(file) as archive:
        for path in (ROOT / "crds").glob("*.yaml"):
            packed = archive.extractfile(f"moeops/files/crds/{path.name}")
            assert packed is not None
            assert packed.read() == path.read_bytes()


@pytest.mark.parametrize(
    ("values", "flags", "made"),
    [
        ({}, (f"--api-versions={MUTATING}",), True),
        ({}, ("--kube-version=1.35.0",), False),
        ({"admissionPolicies": {"mutating": "Never"}}, (f"--api-versions={MUTATING}",), False),
        ({"admissionPolicies": {"mutating": "Always"}}, ("--kube-version=1.35.0",), True),
    ],
    ids=["known", "not known", "not wanted", "wanted in any case"],
)
def test_what_an_api_server_does_not_know_is_left_out(
    values: Values, flags: tuple[str, ...], made: bool
) -> None:
    kinds = {body["kind"] for body in charts.render(values, *flags)}
    mutating = {"MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding"}
    assert mutating & kinds == (mutating if made else set())
    assert {"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"} <= kinds


def test_a_kubernetes_that_is_too_old_is_refused() -> None:
    done = charts.helm("template", "moeops", CHART, "--kube-version=1.29.0")
    assert done.returncode != 0
    assert "chart requires kubeVersion: >=1.30.0-0" in done.stderr


@pytest.mark.parametrize("switch", SWITCHES)
def test_what_is_switched_off_is_not_made(switch: str) -> None:
    name, kinds = SWITCHES[switch]
    off: dict[str, object] = {name: False}
    if switch == "serviceAccount":
        off["name"] = "mine"
    before = charts.render(ALL)
    after = charts.render({**ALL, switch: off})
    gone = {charts.key(body) for body in before} - {charts.key(body) for body in after}
    assert gone, "nothing changed"
    assert kinds == {kind for kind, _ in gone} - {
        "Role",
        "RoleBinding",
        "ClusterRole",
        "ServiceAccount",
    }
    assert not kinds & {body["kind"] for body in after}


def test_an_account_of_somebody_elses_making_gets_the_rights() -> None:
    bodies = charts.render({"serviceAccount": {"create": False, "name": "mine"}})
    assert (
        charts.one(bodies, "Deployment")["spec"]["template"]["spec"]["serviceAccountName"] == "mine"
    )
    bound = charts.one(bodies, "ClusterRoleBinding")["subjects"]
    assert bound == [{"kind": "ServiceAccount", "name": "mine", "namespace": SYSTEM}]


def test_images_are_named_together_or_one_by_one() -> None:
    bodies = charts.render(
        {
            "images": {
                "prefix": "registry.example.com/me/moeops-",
                "tag": "0123",
                "worker": "registry.example.com/me/worker@sha256:ab",
                "pullPolicy": "Always",
                "pullSecrets": ["pull"],
            }
        }
    )
    assert operator(bodies)["image"] == "registry.example.com/me/moeops-operator:0123"
    assert env(bodies)["MOE_ROUTER_IMAGE"] == "registry.example.com/me/moeops-router:0123"
    assert env(bodies)["MOE_WORKER_IMAGE"] == "registry.example.com/me/worker@sha256:ab"
    assert env(bodies)["MOE_EVALUATOR_IMAGE"] == "registry.example.com/me/moeops-evaluator:0123"
    for pod in charts.pods(bodies):
        assert pod["imagePullSecrets"] == [{"name": "pull"}]
        assert [each["imagePullPolicy"] for each in pod["containers"]] == ["Always"]


def test_the_operator_takes_what_it_is_started_with() -> None:
    options = Options.read((), {**env(charts.render(TEAMS)), "POD_NAMESPACE": SYSTEM})
    assert options.namespaces == ("team-a", "team-b")
    assert options.settings.evaluator_image == "moeops/evaluator:0.1.0"
    assert (options.lease_namespace, options.lease) == (SYSTEM, "moeops-operator")
    everywhere = Options.read((), env(charts.render({"operator": {"logLevel": "DEBUG"}})))
    assert (everywhere.namespaces, everywhere.log_level) == ((), "DEBUG")


def test_all_that_selects_the_operator_finds_it() -> None:
    bodies = charts.render({**ALL, "operator": {"podLabels": {"team": "ml"}}})
    deployment = charts.one(bodies, "Deployment")["spec"]
    labels = deployment["template"]["metadata"]["labels"].items()
    service = next(b for b in bodies if b["kind"] == "Service")["spec"]
    (spread,) = deployment["template"]["spec"]["topologySpreadConstraints"]
    for selector in (
        deployment["selector"]["matchLabels"],
        spread["labelSelector"]["matchLabels"],
        charts.one(bodies, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        charts.one(bodies, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        service["selector"],
    ):
        assert selector.items() <= labels
    assert ("team", "ml") in labels
    (check,) = (b for b in bodies if b["kind"] == "Pod")
    assert not service["selector"].items() <= check["metadata"]["labels"].items()


def test_the_network_policy_admits_to_every_port_of_the_operator() -> None:
    bodies = charts.render(ALL)
    (rule,) = charts.one(bodies, "NetworkPolicy")["spec"]["ingress"]
    admitted = {(port["port"], port["protocol"]) for port in rule["ports"]}
    assert admitted == {(port["name"], port["protocol"]) for port in operator(bodies)["ports"]}


def test_two_releases_have_only_the_custom_resources_in_common() -> None:
    first, second = charts.render(), charts.render(release="other")
    common = {charts.key(body) for body in first} & {charts.key(body) for body in second}
    assert {kind for kind, _ in common} == {"CustomResourceDefinition"}
    assert charts.one(second, "Deployment")["metadata"]["name"] == "other-moeops-operator"
    named = charts.render({"fullnameOverride": "mine"})
    assert charts.one(named, "Deployment")["metadata"]["name"] == "mine-operator"


def test_policies_of_an_installation_for_namespaces_hold_in_these() -> None:
    bodies = charts.render(TEAMS)
    bindings = [b for b in bodies if b["kind"].endswith("AdmissionPolicyBinding")]
    assert len(bindings) == 3
    for binding in bindings:
        (rule,) = binding["spec"]["matchResources"]["namespaceSelector"]["matchExpressions"]
        assert rule == {
            "key": "kubernetes.io/metadata.name",
            "operator": "In",
            "values": ["team-a", "team-b"],
        }
    for binding in (b for b in charts.render() if b["kind"].endswith("AdmissionPolicyBinding")):
        assert "matchResources" not in binding["spec"]


def test_more_objects_are_templates() -> None:
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "{{ .Release.Name }}-a"},
    }
    text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: b, labels: {of: {{ .Release.Name }}}}"
    made = charts.of(charts.render({"extraObjects": [config, text]}), "ConfigMap")
    assert made.keys() == {"moeops-a", "b"}
    assert made["b"]["metadata"]["labels"] == {"of": "moeops"}


def test_our_labels_are_on_everything_and_so_are_those_of_others() -> None:
    for body in charts.render({**ALL, "commonLabels": {"cost": "ml"}}):
        labels = body["metadata"]["labels"]
        assert labels["app.kubernetes.io/name"] == "moeops"
        assert labels["app.kubernetes.io/managed-by"] == "Helm"
        assert labels["cost"] == "ml"
