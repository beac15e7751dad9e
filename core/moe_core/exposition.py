"""Writes metrics as text: OpenMetrics 1.0, or Prometheus' own format 0.0.4 for who asks for that.

Line by line, so that whoever sends it can let others go first. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import accumulate

from moe_core.metrics import Collector, Family, Histogram, Kind, Labels, Point

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
TEXT = "text/plain; version=0.0.4; charset=utf-8"

_SPECIAL = frozenset('\\"\n')
_PLAIN_KINDS = {Kind.INFO: "gauge"}


def wants_openmetrics(accept: str) -> bool:
    """Whether an Accept header names OpenMetrics."""
    return any(
        part.split(";")[0].strip().lower() == "application/openmetrics-text"
        for part in accept.split(",")
    )


def lines(collector: Collector, *, openmetrics: bool) -> Iterator[str]:
    """Give the text, in pieces of a line or a few."""
    for family, points in collector.collect():
        yield _head(family, openmetrics)
        yield from _samples(family, points)
    if openmetrics:
        yield "# EOF\n"


def _head(family: Family, openmetrics: bool) -> str:
    name, kind = family.name, str(family.kind)
    if not openmetrics and family.kind in (Kind.COUNTER, Kind.INFO):
        name, kind = family.names[0], _PLAIN_KINDS.get(family.kind, kind)
    text = family.help.replace("\\", r"\\").replace("\n", r"\n")
    if openmetrics:
        text = text.replace('"', r"\"")
    unit = f"# UNIT {name} {family.unit}\n" if openmetrics and family.unit else ""
    return f"# HELP {name} {text}\n# TYPE {name} {kind}\n{unit}"


def _samples(family: Family, points: Iterable[Point]) -> Iterator[str]:
    name = family.names[0]
    for labels, value in points:
        pairs = _pairs(family.labels, labels)
        if isinstance(value, Histogram):
            yield _buckets(family, pairs, value)
        else:
            yield f"{name}{{{pairs}}} {_number(value)}\n" if pairs else f"{name} {_number(value)}\n"


def _buckets(family: Family, pairs: str, value: Histogram) -> str:
    bucket, total, count = family.names
    before = f"{pairs}," if pairs else ""
    bounds = [*map(_bound, value.bounds), "+Inf"]
    counts = list(accumulate(value.counts))
    rows = [
        f'{bucket}{{{before}le="{bound}"}} {count_}\n'
        for bound, count_ in zip(bounds, counts, strict=True)
    ]
    own = f"{{{pairs}}}" if pairs else ""
    return f"{''.join(rows)}{total}{own} {_number(value.sum)}\n{count}{own} {counts[-1]}\n"


def _pairs(names: Labels, values: Labels) -> str:
    return ",".join(
        [f'{name}="{_quoted(value)}"' for name, value in zip(names, values, strict=True)]
    )


def _quoted(value: str) -> str:
    if _SPECIAL.isdisjoint(value):
        return value
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _bound(value: float) -> str:
    return repr(float(value))


def _number(value: float) -> str:
    if value == math.inf:
        return "+Inf"
    if value == -math.inf:
        return "-Inf"
    return "NaN" if value != value else repr(value)
