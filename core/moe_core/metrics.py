"""What a metric is: its name, labels and unit, said once, and its values at one moment.

Programs describe their metrics as `Family`s; the reference page, dashboards and alerts are checked
against these. Values are read from counters when somebody asks, by collectors. Only data: how it
is written is `exposition`, how it is asked for `metrics_port`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

Labels = tuple[str, ...]


class Kind(StrEnum):
    """Types of OpenMetrics."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
    INFO = "info"


_SUFFIXES = {
    Kind.COUNTER: ("_total",),
    Kind.GAUGE: ("",),
    Kind.HISTOGRAM: ("_bucket", "_sum", "_count"),
    Kind.INFO: ("_info",),
}


@dataclass(frozen=True, slots=True)
class Family:
    """One metric. `name` is without the suffix of its kind, and ends in its `unit` if it has one.

    `series` says how many time series it makes, in words, for the reference.
    """

    name: str
    kind: Kind
    help: str
    labels: Labels = ()
    unit: str = ""
    series: str = "1"

    @property
    def names(self) -> tuple[str, ...]:
        """The names that a query may use."""
        return tuple(self.name + suffix for suffix in _SUFFIXES[self.kind])


@dataclass(frozen=True, slots=True)
class Exemplar:
    """A value that was counted, and the ids of a trace in which to see why; `at_s` since 1970."""

    value: float
    ids: Mapping[str, str]
    at_s: float


class Histogram:
    """Counts values by upper bounds, which rise; what is above the last one has a place too.

    `exemplars` has the last one of each place, as far as there are any.
    """

    __slots__ = ("bounds", "counts", "exemplars", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.sum = 0.0
        self.exemplars: dict[int, Exemplar] = {}

    @classmethod
    def of(cls, bounds: Sequence[float], counts: Sequence[int], total: float) -> Histogram:
        """Return one of values that were counted elsewhere."""
        made = cls(bounds)
        made.counts, made.sum = list(counts), total
        return made

    def copy(self) -> Histogram:
        copied = Histogram.of(self.bounds, self.counts, self.sum)
        copied.exemplars = dict(self.exemplars)
        return copied

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def mark(self, exemplar: Exemplar) -> None:
        """Keep an example of a value that was observed."""
        self.exemplars[bisect_left(self.bounds, exemplar.value)] = exemplar


Value = int | float | Histogram
Point = tuple[Labels, Value]  # the labels' values, in the order of the family


class Collector(Protocol):
    """Reads counters when asked."""

    def collect(self) -> Iterable[tuple[Family, Iterable[Point]]]:
        """Give each family once, with its points. Between two points others may count on."""
        ...


def one(value: Value, *labels: str) -> Iterator[Point]:
    """Give the only point of a family."""
    yield labels, value
