"""What every process says of itself: processor time, memory, open files, since when it runs.

Read from /proc by prometheus-client, under the names that all its users know.
"""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.process_collector import ProcessCollector

from moe_core.metrics import Family, Kind, Point

FAMILIES = (
    Family("process_cpu_seconds", Kind.COUNTER, "Processor time, user and system.", (), "seconds"),
    Family("process_resident_memory_bytes", Kind.GAUGE, "Resident memory.", (), "bytes"),
    Family("process_virtual_memory_bytes", Kind.GAUGE, "Virtual memory.", (), "bytes"),
    Family("process_start_time_seconds", Kind.GAUGE, "When it began, unix time.", (), "seconds"),
    Family("process_open_fds", Kind.GAUGE, "File descriptors that are open."),
    Family("process_max_fds", Kind.GAUGE, "File descriptors that may be open."),
)


class ProcessMetrics:
    """Collects them for this process."""

    def __init__(self) -> None:
        self._read = ProcessCollector(registry=None)

    def collect(self) -> Iterable[tuple[Family, Iterable[Point]]]:
        known = {family.name: family for family in FAMILIES}
        for metric in self._read.collect():
            family = known.get(metric.name)
            if family is not None:
                yield family, [((), sample.value) for sample in metric.samples]
