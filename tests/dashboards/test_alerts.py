"""Each alert fires where it must and not where it must not, and has a runbook."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubectl_moe.arguments import parser
from tests.dashboards.files import ALERTS, Body, alerts
from tests.support.promtool import promtool

STORIES = Path(__file__).with_name("alerts.yaml")
RUNBOOKS = Path(__file__).resolve().parents[2] / "docs" / "runbooks"
RULE = pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])


def told() -> dict[str, list[bool]]:
    """Return for each alert, story by story, whether it is to fire."""
    found: dict[str, list[bool]] = {}
    stories: dict[str, Any] = yaml.safe_load(STORIES.read_text())
    for story in stories["tests"]:
        for test in story["alert_rule_test"]:
            found.setdefault(test["alertname"], []).append(bool(test["exp_alerts"]))
    return found


def test_alerts_fire_as_the_stories_say() -> None:
    done = promtool("test", "rules", STORIES)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_story_that_ends_otherwise_is_noticed(tmp_path: Path) -> None:
    """The rules with another threshold fail: the stories are run."""
    rules = ALERTS.read_text().replace("== 0\n", "== 5\n")
    (tmp_path / "alerts.yaml").write_text(rules)
    stories = STORIES.read_text().replace("../../charts/moeops/files/alerts.yaml", "alerts.yaml")
    (tmp_path / "stories.yaml").write_text(stories)
    done = promtool("test", "rules", tmp_path / "stories.yaml")
    assert done.returncode != 0
    assert "MoeExpertDown" in done.stdout + done.stderr


@RULE
def test_stories_tell_of_an_alert_both_ways(rule: Body) -> None:
    assert {True, False} <= set(told()[rule["alert"]])


@RULE
def test_an_alert_says_what_and_how_bad(rule: Body) -> None:
    assert re.fullmatch(r"Moe[A-Z]\w+", rule["alert"])
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert set(rule["annotations"]) == {"summary", "description"}, "the chart adds runbook_url"


@RULE
def test_a_runbook_has_its_four_parts(rule: Body) -> None:
    page = (RUNBOOKS / f"{rule['alert']}.md").read_text()
    assert page.startswith(f"# {rule['alert']}\n")
    parts = re.split(r"^## (\w+)\n", page, flags=re.MULTILINE)[1:]
    assert parts[::2] == ["Meaning", "Impact", "Diagnosis", "Mitigation"]
    assert all(len(text.strip()) > 20 for text in parts[1::2])


@RULE
def test_commands_of_a_runbook_are_those_of_the_plugin(rule: Body) -> None:
    page = (RUNBOOKS / f"{rule['alert']}.md").read_text()
    for command in re.findall(r"`kubectl moe ([^`]+)`", page):
        parser().parse_args(command.split())


def test_every_runbook_is_of_an_alert() -> None:
    assert {page.stem for page in RUNBOOKS.glob("*.md")} == {rule["alert"] for rule in alerts()}
