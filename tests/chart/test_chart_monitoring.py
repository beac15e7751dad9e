"""What the chart gives to Prometheus and Grafana: nothing by default, and what finds our pods."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from tests.chart import charts
from tests.chart.charts import TEAMS, Body, Values
from tests.dashboards.files import alerts, boards
from tests.support.promtool import promtool

ALL: Values = {name: {"enabled": True} for name in ("podMonitors", "prometheusRule", "dashboards")}
KINDS = {"PodMonitor", "PrometheusRule"}
MANIFESTS = Path(__file__).parents[1] / "operator" / "plan" / "golden" / "manifests.yaml"


def rules(made: Sequence[Body]) -> list[Body]:
    groups = charts.one(made, "PrometheusRule")["spec"]["groups"]
    return [rule for group in groups for rule in group["rules"]]


def dashboards(made: Sequence[Body]) -> list[Body]:
    maps = charts.of(made, "ConfigMap").values()
    return [body for body in maps if "-dashboard-" in body["metadata"]["name"]]


def selects(monitor: Body, pod: Body) -> bool:
    """Return whether a PodMonitor finds this pod template, and a port by its name."""
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    ports = [p["name"] for c in pod["spec"]["containers"] for p in c.get("ports", ())]
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    return wanted <= pod["metadata"]["labels"].items() and endpoint["port"] in ports


def templates(made: Sequence[Body]) -> list[Body]:
    return [body["spec"]["template"] for body in made if body["kind"] == "Deployment"]


def test_nothing_of_it_is_there_by_default() -> None:
    made = charts.render()
    assert not KINDS & {body["kind"] for body in made}
    assert not dashboards(made)


@pytest.mark.parametrize("component", ["operator", "router", "worker"])
def test_a_monitor_finds_the_pods_of_one_program(component: str) -> None:
    made = charts.render(ALL)
    monitors = charts.of(made, "PodMonitor")
    monitor = monitors[f"moeops-system/moeops-{component}"]
    pods = [*templates(made), *templates(list(yaml.safe_load_all(MANIFESTS.read_text())))]
    found = [pod["metadata"]["labels"] for pod in pods if selects(monitor, pod)]
    assert found
    for labels in found:
        own = labels.get("moeops.dev/component", labels.get("app.kubernetes.io/component"))
        assert own == component


def test_monitors_look_where_the_operator_serves() -> None:
    for values, wanted in ((ALL, {"any": True}), ({**ALL, **TEAMS}, {"matchNames": listed(TEAMS)})):
        monitors = charts.of(charts.render(values), "PodMonitor")
        for program in ("router", "worker"):
            spec = monitors[f"moeops-system/moeops-{program}"]["spec"]
            assert spec["namespaceSelector"] == wanted
        assert "namespaceSelector" not in monitors["moeops-system/moeops-operator"]["spec"]


def listed(values: Values) -> list[str]:
    names: list[str] = values["scope"]["namespaces"]
    return names


def test_the_rules_are_the_files_with_runbooks_and_labels(tmp_path: Path) -> None:
    base, team = "https://example.org/runbooks", {"team": "moe"}
    own = {"enabled": True, "runbooks": f"{base}/", "alertLabels": team}
    made = charts.render({"prometheusRule": own})
    wanted = alerts()
    for rule in wanted:
        rule["annotations"]["runbook_url"] = f"{base}/{rule['alert']}.md"
        rule["labels"] |= team
    assert rules(made) == wanted
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump(charts.one(made, "PrometheusRule")["spec"]))
    assert promtool("check", "rules", file).returncode == 0


def test_an_alert_looks_at_the_lease_of_its_release() -> None:
    for release, lease in (("moeops", "moeops-operator"), ("blue", "blue-moeops-operator")):
        made = charts.render(ALL, release=release)
        (rule,) = (r for r in rules(made) if r["alert"] == "MoeOperatorWithoutLeader")
        (container,) = charts.one(made, "Deployment")["spec"]["template"]["spec"]["containers"]
        env = {each["name"]: each.get("value") for each in container["env"]}
        assert re.findall('name="([^"]+)"', rule["expr"]) == [lease] == [env["MOE_LEASE"]]


def test_each_dashboard_is_a_config_map_that_the_sidecar_finds() -> None:
    made = dashboards(charts.render(ALL))
    assert {body["metadata"]["name"] for body in made} == {
        f"moeops-dashboard-{name}" for name in boards()
    }
    for body in made:
        assert body["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert body["metadata"]["annotations"] == {"grafana_folder": "MoE"}
        ((name, text),) = body["data"].items()
        assert json.loads(text) == boards()[name.removeprefix("moeops-").removesuffix(".json")]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"podMonitors": {"interval": "15"}}, "'/podMonitors/interval': '15' does not match"),
        ({"prometheusRule": {"runbooks": ""}}, "'/prometheusRule/runbooks': minLength"),
        (
            {"prometheusRule": {"alertLabels": {"severity": "page"}}},
            "invalid propertyName 'severity'",
        ),
        ({"dashboards": {"labels": {"grafana_dashboard": 1}}}, "got number, want string"),
        ({"dashboards": {"enabled": "yes"}}, "'/dashboards/enabled': got string, want boolean"),
    ],
)
def test_a_wrong_value_is_refused_by_name(values: Values, words: str) -> None:
    assert words in charts.refused(values)
