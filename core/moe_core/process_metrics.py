"""What every process says of itself, as prometheus-client reads it from /proc."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from prometheus_client import PROCESS_COLLECTOR

from moe_core.metrics import Family, Kind, Point


class ProcessMetrics:
    """Collects processor time, memory, open files and since when it runs, of this process."""

    def collect(self) -> Iterator[tuple[Family, list[Point]]]:
        for metric in PROCESS_COLLECTOR.collect():
            family = Family(metric.name, Kind(metric.type), metric.documentation)
            yield family, [((), sample.value) for sample in metric.samples]


FAMILIES: Final = tuple(family for family, _ in ProcessMetrics().collect())
