"""Every query of dashboards and alerts is PromQL, and of metrics and labels that there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tests.dashboards.files import (
    ALERTS,
    Asked,
    alerts,
    asked,
    boards,
    faults,
    filled,
    known,
    labels_of,
)
from tests.support.promtool import promtool

EVERY = [pytest.param(each, id=f"{each.board}: {each.panel}") for each in asked()]


def refused(exprs: list[str], folder: Path) -> str:
    """Return what promtool has against queries, each put into a rule of its own."""
    rules = [{"record": f"query:{n}", "expr": expr} for n, expr in enumerate(exprs)]
    file = folder / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    done = promtool("check", "rules", file)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_every_query_is_promql(tmp_path: Path) -> None:
    assert len(EVERY) > 90
    assert refused([each.with_values({}) for each in asked()], tmp_path) == ""
    assert "parse error" in refused(["sum by (a (b)"], tmp_path)


@pytest.mark.parametrize("each", EVERY)
def test_a_query_uses_what_the_code_defines(each: Asked) -> None:
    assert list(faults(each.expr)) == []
    legend = set(re.findall(r"\{\{(\w+)\}\}", each.legend))
    used = set(re.findall(r"([a-z_]\w*)\{", each.expr))
    assert legend <= known(used)


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_an_alert_uses_what_the_code_defines(rule: dict[str, str]) -> None:
    assert list(faults(rule["expr"])) == []


@pytest.mark.parametrize(
    ("expr", "fault"),
    [
        ('moeops_router_request_total{mixture="a"}', "moeops_router_request_total is no metric"),
        (
            'moeops_router_requests_total{expert="a"}',
            "moeops_router_requests_total has no label expert",
        ),
        ("sum(moeops_router_stream)", "moeops_router_stream is no metric"),
        (
            "sum by (expert) (moeops_router_streams{})",
            "expert is a label of no metric in the query",
        ),
        (
            "moeops_router_links{} / on (gate) moeops_router_streams{}",
            "gate is a label of no metric in the query",
        ),
        (
            'moeops_router_request_duration_seconds_sum{le="1"}',
            "moeops_router_request_duration_seconds_sum has no label le",
        ),
    ],
)
def test_what_is_not_defined_is_found(expr: str, fault: str) -> None:
    assert list(faults(expr)) == [fault]


def test_variables_ask_for_what_the_code_defines() -> None:
    for board in boards().values():
        for variable in board["templating"]["list"]:
            if variable["type"] == "query":
                found = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"])
                assert found is not None, variable
                names = re.findall(r"\b[a-z]\w+_\w+(?=\{|$|\||\")", found[1])
                assert names
                assert all(found[2] in labels_of(name) for name in names)


def test_a_variable_that_is_used_is_there() -> None:
    for board in boards().values():
        there = {variable["name"] for variable in board["templating"]["list"]}
        text = str(board["panels"]) + str([v.get("query") for v in board["templating"]["list"]])
        used = set(re.findall(r"\$\{?([a-z]+)", text)) - {"__rate_interval"}
        assert used == there, board["title"]


def test_the_rules_are_what_prometheus_takes() -> None:
    done = promtool("check", "rules", ALERTS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert filled('a{job=~"$job"}[$__rate_interval]', {"job": "x"}) == 'a{job=~"x"}[1m]'
