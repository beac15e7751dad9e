"""Reads a dashboard's JSON into what is drawn. Knows the forms that `drawing` writes, no others."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

Body = Mapping[str, Any]


class Kind(Enum):
    """What a panel is drawn as; the values are Grafana's types."""

    HEADING = "row"
    LINES = "timeseries"
    NUMBER = "stat"
    STATES = "state-timeline"
    TABLE = "table"
    MATRIX = "table, grouped to a matrix"


@dataclass(frozen=True, slots=True)
class Target:
    """A query, and how its series are called; of a table, the column of its values."""

    expr: str
    legend: str
    instant: bool


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel, in units of the grid: 24 columns, rows of a fixed height."""

    kind: Kind
    title: str
    description: str
    x: int
    y: int
    width: int
    height: int
    unit: str = "none"
    targets: tuple[Target, ...] = ()
    steps: tuple[tuple[float, str], ...] = ()  # from which value on, which colour
    coloured: frozenset[str] = frozenset()  # columns of a table
    texts: Mapping[str, str] | None = None  # what is said instead of a value

    def colour(self, value: float) -> str:
        """Return the name of the colour that a value has."""
        return next((colour for least, colour in reversed(self.steps) if value >= least), "green")

    @property
    def when_empty(self) -> str:
        """Return the sentence that says when there is no data though all is well."""
        _, found, rest = self.description.rpartition("Empty ")
        return f"{found}{rest}" if found and rest.endswith(".") else ""


@dataclass(frozen=True, slots=True)
class Choice:
    """A variable: the values that a label has, among the series that a selector finds."""

    name: str
    label: str
    selector: str
    several: bool


@dataclass(frozen=True, slots=True)
class Sheet:
    """One dashboard."""

    title: str
    description: str
    choices: tuple[Choice, ...]
    panels: tuple[Panel, ...]


def read(body: Body) -> Sheet:
    """Return the dashboard that a JSON describes. Raises ValueError for what cannot be drawn."""
    variables = (v for v in body["templating"]["list"] if v["type"] == "query")
    return Sheet(
        body["title"],
        body["description"],
        tuple(_choice(variable) for variable in variables),
        tuple(_panel(panel) for panel in body["panels"]),
    )


def _choice(variable: Body) -> Choice:
    query = str(variable["query"])
    inner = query.removeprefix("label_values(").removesuffix(")")
    selector, comma, label = inner.rpartition(",")
    if inner == query or not comma:
        raise ValueError(f"variable {variable['name']} is {query!r}; only label_values is known")
    return Choice(variable["name"], label.strip(), selector, bool(variable.get("includeAll")))


def _panel(panel: Body) -> Panel:
    grid, kind = panel["gridPos"], _kind(panel)
    place = (grid["x"], grid["y"], grid["w"], grid["h"])
    if kind is Kind.HEADING:
        return Panel(kind, panel["title"], "", *place)
    config = panel["fieldConfig"]
    return Panel(
        kind,
        panel["title"],
        panel.get("description", ""),
        *place,
        unit=config["defaults"].get("unit", "none"),
        targets=tuple(
            Target(t["expr"], t.get("legendFormat", ""), t.get("instant", False))
            for t in panel["targets"]
        ),
        steps=tuple(
            (-math.inf if step["value"] is None else float(step["value"]), step["color"])
            for step in config["defaults"]["thresholds"]["steps"]
        ),
        coloured=frozenset(over["matcher"]["options"] for over in config.get("overrides", ())),
        texts=_texts(config["defaults"]),
    )


def _kind(panel: Body) -> Kind:
    grouped = any(t["id"] == "groupingToMatrix" for t in panel.get("transformations", ()))
    return Kind.MATRIX if grouped else Kind(panel["type"])


def _texts(defaults: Body) -> Mapping[str, str] | None:
    mappings = defaults.get("mappings", ())
    return {key: said["text"] for one in mappings for key, said in one["options"].items()} or None
