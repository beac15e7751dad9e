"""Has prometheus-client write metrics as text, a piece at a time. Pure.

Values are read as they are written, so that others may go first between two pieces. What a line
looks like is the library's to know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final

from prometheus_client import core
from prometheus_client.registry import Collector as Registry

from moe_core.metrics import Collector, Family, Histogram, Kind, Labels, Value

SAMPLES_AT_ONCE: Final = 100  # about a millisecond

Encode = Callable[[Registry], bytes]  # one that the library's choose_encoder chose
_TYPES: Final[Mapping[Kind, Callable[..., core.Metric]]] = {
    Kind.COUNTER: core.CounterMetricFamily,
    Kind.GAUGE: core.GaugeMetricFamily,
    Kind.HISTOGRAM: core.HistogramMetricFamily,
    Kind.INFO: core.InfoMetricFamily,
}


@dataclass(frozen=True, slots=True)
class _Some:
    """What is written at once, as the library asks for it."""

    metrics: Sequence[core.Metric]

    def collect(self) -> Sequence[core.Metric]:
        return self.metrics


def pieces(collector: Collector, encode: Encode) -> Iterator[bytes]:
    """Give the text in pieces of so many samples, of one family or several.

    The last point of a piece is whole. A family that goes on in the next piece has its head, and
    the text its end, once: both are what the library writes where there are no samples.
    """
    end, head = encode(_Some(())), b""
    some, size = list[core.Metric](), 0
    for family, points in collector.collect():
        some.append(metric := _metric(family))
        for labels, value in points:
            before = len(metric.samples)
            _add(metric, labels, value)
            size += len(metric.samples) - before
            if size >= SAMPLES_AT_ONCE:
                yield encode(_Some(some)).removesuffix(end).removeprefix(head)
                metric.samples, some, size = [], [metric], 0
                head = encode(_Some(some)).removesuffix(end)
    yield encode(_Some(some)).removeprefix(head)


def _metric(family: Family) -> core.Metric:
    metric = _TYPES[family.kind](family.name, family.help, labels=family.labels)
    metric.unit = family.unit
    return metric


def _add(metric: Any, labels: Labels, value: Value) -> None:  # each type has its own add_metric
    if isinstance(value, Histogram):
        bounds = [*(str(float(bound)) for bound in value.bounds), "+Inf"]
        buckets: list[Any] = list(zip(bounds, accumulate(value.counts), strict=True))
        for place, one in value.exemplars.items():
            buckets[place] = *buckets[place], core.Exemplar(dict(one.ids), one.value, one.at_s)
        metric.add_metric(labels, buckets, value.sum)
    else:
        metric.add_metric(labels, {} if metric.type == Kind.INFO else value)
