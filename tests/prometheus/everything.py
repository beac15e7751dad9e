"""One sample of each metric that the programs describe, for a Prometheus to scrape."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from moe_core.metrics import Family, Kind
from tests.reference.metrics import PROGRAMS

_VALUES: Mapping[str, tuple[str, ...]] = {
    "controller": ("mixture",),
    "code": ("UNAVAILABLE", "INTERNAL"),
    "kind": ("Mixture", "Expert", "Gate"),
    "layer": ("0", "1"),
    "mixture": ("tiny",),
    "mixture_namespace": ("moe",),
    "namespace": ("moe",),
    "outcome": ("Progressing", "Promoted"),
    "rung": ("Replica", "Backup"),
    "state": ("Live", "Silent"),
}


class Everything(Collector):
    """Gives each metric, with one or two values of each label; counters rise with the time."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def collect(self) -> Iterator[Metric]:
        grown = time.monotonic() - self._began + 1
        for family in itertools.chain(*PROGRAMS.values()):
            kind = "counter" if family.kind is Kind.HISTOGRAM else str(family.kind)
            metric = Metric(family.name, family.help, "unknown" if kind == "info" else kind)
            for labels in _labels(family):
                for name, more, value in _samples(family, grown):
                    metric.add_sample(name, {**labels, **more}, value)
            yield metric


def _labels(family: Family) -> Iterator[dict[str, str]]:
    names = list(family.labels)
    if "mixture" in names and "mixture_namespace" not in names:
        names.append("namespace")
    values = (_VALUES.get(name, (f"{name}-a", f"{name}-b")) for name in names)
    for chosen in itertools.product(*values):
        yield dict(zip(names, chosen, strict=True))


def _samples(family: Family, grown: float) -> Iterator[tuple[str, dict[str, str], float]]:
    if family.kind is not Kind.HISTOGRAM:
        yield family.names[0], {}, grown if family.kind is Kind.COUNTER else 1.0
        return
    bucket, total, count = family.names
    yield from ((bucket, {"le": le}, grown) for le in ("0.1", "1", "+Inf"))
    yield from ((total, {}, grown), (count, {}, grown))


def registry() -> CollectorRegistry:
    """Return a registry that gives everything."""
    made = CollectorRegistry()
    made.register(Everything())
    return made
