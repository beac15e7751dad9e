"""Reads what the chart ships for Grafana and Prometheus: panels, variables, queries, alerts.

Queries are read from the files themselves, so that what is tested is what is loaded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from moe_core.metrics import Family, Kind
from tests.reference.metrics import PROGRAMS

FILES: Final = Path(__file__).resolve().parents[2] / "charts" / "moeops" / "files"
ALERTS: Final = FILES / "alerts.yaml"

Body = dict[str, Any]
Labels = frozenset[str]

# What Prometheus, its operator's PodMonitors and `_bucket` add.
ADDED: Final = frozenset({"job", "instance", "namespace", "pod"})
FAMILIES: Final[Mapping[str, Family]] = {
    name: family for families in PROGRAMS.values() for family in families for name in family.names
}
_INTERVAL: Final = "1m"
_TEXT: Final = re.compile(r'"(?:[^"\\]|\\.)*"')
_SELECTOR: Final = re.compile(r"([a-zA-Z_:][\w:]*)\s*\{([^{}]*)\}")
_NAME: Final = re.compile(r"(?<![\w:$])(?:moeops|process|controller_runtime|workqueue|leader)_\w+")
_GROUPING: Final = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^()]*)\)")


@dataclass(frozen=True, slots=True)
class Asked:
    """One query of a panel: its PromQL as it stands in the file."""

    board: str
    panel: str
    expr: str
    legend: str
    instant: bool

    def with_values(self, values: Mapping[str, str]) -> str:
        """Return the query as Grafana sends it, with these values of variables."""
        return filled(self.expr, values)


def filled(expr: str, values: Mapping[str, str]) -> str:
    """Put values in the place of variables; `.+` where none is given."""
    text = expr.replace("$__rate_interval", _INTERVAL).replace("$__range", _INTERVAL)
    return re.sub(r"\$([a-z_]+)", lambda found: values.get(found[1], ".+"), text)


def boards() -> Mapping[str, Body]:
    """Return the dashboards by the name of their file."""
    found = sorted((FILES / "dashboards").glob("*.json"))
    return {path.stem: json.loads(path.read_text()) for path in found}


def panels(board: Body) -> Iterator[Body]:
    """Give the panels of a dashboard, those in folded rows too, rows themselves not."""
    for panel in board["panels"]:
        if panel["type"] != "row":
            yield panel
        yield from panel.get("panels", ())


def asked() -> list[Asked]:
    """Return all queries of all panels."""
    return [
        Asked(name, panel["title"], t["expr"], t.get("legendFormat", ""), t.get("instant", False))
        for name, board in boards().items()
        for panel in panels(board)
        for t in panel["targets"]
    ]


def alerts() -> list[Body]:
    """Return the rules of the chart."""
    return [
        rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]
    ]


def faults(expr: str) -> Iterator[str]:
    """Give what in a query is no metric, or no label of one, that the code defines."""
    bare = _TEXT.sub('""', expr)
    used = set(_NAME.findall(bare)) | {name for name, _ in _SELECTOR.findall(bare)}
    yield from (f"{name} is no metric" for name in sorted(used - FAMILIES.keys()))
    for name, matchers in _SELECTOR.findall(bare):
        for label in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers):
            if name in FAMILIES and label not in labels_of(name):
                yield f"{name} has no label {label}"
    shared = known(used) | set(re.findall(r'label_replace\(.*?, "(\w+)"', expr))
    for group in _GROUPING.findall(bare):
        for label in filter(None, (part.strip() for part in group.split(","))):
            if label not in shared:
                yield f"{label} is a label of no metric in the query"


def known(names: Iterable[str]) -> set[str]:
    """Return the labels that these metrics have between them."""
    return set().union(ADDED, *(labels_of(name) for name in names if name in FAMILIES))


def labels_of(name: str) -> Labels:
    """Return the labels of a metric as it is stored."""
    family = FAMILIES[name]
    bucket = {"le"} if family.kind is Kind.HISTOGRAM and name.endswith("_bucket") else set[str]()
    return ADDED | set(family.labels) | bucket
