"""Dashboards are fresh, and keep the rules of Grafana's dashboard-linter and some of ours.

The rules' names are the linter's (github.com/grafana/dashboard-linter); it is not run itself.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dashboards.__main__ import drawn, stale, write
from dashboards.places import FOLDER
from tests.dashboards.files import Asked, Body, asked, boards, panels

BOARDS = boards()
EVERY = [
    pytest.param(panel, id=f"{name}: {panel['title']}")
    for name, board in BOARDS.items()
    for panel in panels(board)
]
QUERIES = [pytest.param(each, id=f"{each.board}: {each.panel}") for each in asked()]
BOARD = pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)
_UNITS = {"none", "short", "s", "bytes", "percentunit", "reqps", "rowsps", "ops"}


def variables(board: Body) -> dict[str, Body]:
    return {each["name"]: each for each in board["templating"]["list"]}


def test_the_files_are_fresh() -> None:
    assert stale(FOLDER, drawn()) == [], "run: python -m dashboards"


def test_what_is_stale_is_named_and_written(tmp_path: Path) -> None:
    wanted = {"a.json": "1", "b.json": "2"}
    (tmp_path / "b.json").write_text("old")
    (tmp_path / "c.json").write_text("of no dashboard")

    assert stale(tmp_path, wanted) == ["a.json", "b.json", "c.json"]
    write(tmp_path, wanted)
    assert stale(tmp_path, wanted) == []


def test_there_are_six_and_each_leads_to_the_others() -> None:
    assert set(BOARDS) == {"mixtures", "expert", "routing", "data-plane", "failover", "operator"}
    assert {board["uid"] for board in BOARDS.values()} == {f"moeops-{name}" for name in BOARDS}
    for board in BOARDS.values():
        (link,) = board["links"]
        assert (link["type"], link["includeVars"], link["keepTime"]) == ("dashboards", True, True)
        assert set(link["tags"]) <= set(board["tags"])


@BOARD
def test_template_datasource_rule(board: Body) -> None:
    sources = [v for v in board["templating"]["list"] if v["type"] == "datasource"]
    (source,) = sources
    assert (source["name"], source["label"]) == ("datasource", "Data source")
    assert source["query"] == "prometheus"


@BOARD
def test_template_job_and_instance_rules(board: Body) -> None:
    for name in ("job", "instance"):
        variable = variables(board)[name]
        assert variable["datasource"]["uid"] == "${datasource}"
        assert (variable["type"], variable["label"]) == ("query", name.capitalize())
        assert (variable["multi"], variable["allValue"]) == (True, ".+")


@BOARD
def test_template_on_time_change_reload_rule(board: Body) -> None:
    for variable in board["templating"]["list"]:
        assert variable["type"] != "query" or variable["refresh"] == 2


@BOARD
def test_uneditable_dashboard(board: Body) -> None:
    assert board["editable"] is False
    assert "id" not in board or board["id"] is None


@BOARD
def test_a_row_is_open_and_panels_do_not_overlap(board: Body) -> None:
    taken = set[tuple[int, int]]()
    for panel in board["panels"]:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at.get("x", 0), at.get("x", 0) + at["w"])
            for y in range(at.get("y", 0), at.get("y", 0) + at["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
        assert panel["type"] != "row" or not panel.get("collapsed")


@pytest.mark.parametrize("panel", EVERY)
def test_panel_rules(panel: Body) -> None:
    """panel-datasource, panel-title-description, panel-units, panel-no-targets, and thresholds."""
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"] in _UNITS
    assert panel["targets"]
    steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
    assert steps[0]["value"] is None
    assert [s["value"] for s in steps[1:]] == sorted(s["value"] for s in steps[1:])


@pytest.mark.parametrize("each", QUERIES)
def test_target_rules(each: Asked) -> None:
    """target-job, target-instance, target-rate-interval, target-counter-agg."""
    for matchers in re.findall(r"\w\{([^}]*)\}", each.expr):
        assert 'job=~"$job"' in matchers
        assert 'instance=~"$instance"' in matchers
    assert all(d == "$__rate_interval" for d in re.findall(r"\[([^]]*)\]", each.expr))
    counters = re.findall(r"\b\w+_total\{", each.expr)
    assert len(counters) == len(re.findall(r"(?:rate|increase)\(\w+_total\{[^}]*\}\[", each.expr))


@pytest.mark.parametrize("each", QUERIES)
def test_no_query_lists_what_there_may_be_thousands_of(each: Asked) -> None:
    """At 14,848 experts a panel stays legible, and no query invents data."""
    assert "vector(" not in each.expr
    many = re.search(r"\b(?:by|on) \([^)]*\b(?:expert|gate|layer|instance)\b", each.expr)
    chosen = "$expert" in each.expr and each.board == "expert"
    alone = re.match(r"(?:sum|min|max|count) \(", each.expr)
    operators = each.board == "operator"
    if many and not (chosen or alone or operators):
        assert re.match(r"(?:topk|bottomk)\(\d+, |sum by \([a-z_, ]*mixture\)", each.expr)


def test_legends_name_what_the_query_groups_by() -> None:
    for each in asked():
        grouped = re.search(r"(?:sum|min|max|count) by \(([^)]*)\)", each.expr)
        named = set(re.findall(r"\{\{(\w+)\}\}", each.legend))
        if named and grouped and "label_replace" not in each.expr:
            assert named <= {part.strip() for part in grouped[1].split(",")}, each
