"""What every process says of itself, as prometheus-client reads it from /proc."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.process_collector import ProcessCollector

from moe_core.metrics import Family, Kind, Point


class ProcessMetrics:
    """Collects processor time, memory, open files and since when it runs, of this process."""

    def __init__(self) -> None:
        self._read = ProcessCollector(registry=None)

    def collect(self) -> Iterator[tuple[Family, list[Point]]]:
        for metric in self._read.collect():
            family = Family(metric.name, Kind(metric.type), metric.documentation)
            yield family, [((), sample.value) for sample in metric.samples]
