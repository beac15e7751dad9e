"""What a panel and a dashboard are. Only data: `drawing` makes Grafana's JSON of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final


class Look(Enum):
    """How a panel shows what its queries give."""

    LINES = auto()
    NUMBER = auto()
    STATES = auto()  # one bar a series, 1 and 0 by colour
    TABLE = auto()  # one row a series, one column a label and a query
    MATRIX = auto()  # a table, a row for each layer and a column for each expert


# Values from which a panel turns another colour; the first colour is that of all below.
Steps = tuple[tuple[float, str], ...]
PLAIN: Final[Steps] = ()
LISTED: Final[Steps] = ((0, "green"), (1, "orange"))  # of tables whose rows are what is amiss
ANY_IS_BAD: Final[Steps] = ((1e-9, "red"),)
ZERO_IS_BAD: Final[Steps] = ((0, "red"), (1e-9, "green"))
ONE_IS_GOOD: Final[Steps] = ((0, "red"), (1, "green"))


@dataclass(frozen=True, slots=True)
class Query:
    """PromQL, and what a series of it is called; of a table, the column of its values."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel. `unit` is Grafana's; `empty` says when it has no data though all is well."""

    title: str
    description: str
    unit: str
    queries: tuple[Query, ...]
    steps: Steps = PLAIN
    look: Look = Look.LINES
    width: int = 8
    empty: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under one heading."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Variable:
    """A choice that queries depend on; `query` is Grafana's label_values."""

    name: str
    query: str
    several: bool = True


@dataclass(frozen=True, slots=True)
class Board:
    """One dashboard; `name` is its file's and the end of its uid."""

    name: str
    title: str
    description: str
    variables: tuple[Variable, ...]
    rows: tuple[Row, ...]

    @property
    def panels(self) -> tuple[Panel, ...]:
        return tuple(panel for row in self.rows for panel in row.panels)


def panel(
    title: str,
    description: str,
    unit: str,
    *queries: Query | tuple[str, str],
    steps: Steps = PLAIN,
    look: Look = Look.LINES,
    width: int = 8,
    empty: str = "",
) -> Panel:
    """Return a panel; a query may be given as text and legend."""
    made = tuple(q if isinstance(q, Query) else Query(*q) for q in queries)
    return Panel(title, description, unit, made, steps, look, width, empty)
