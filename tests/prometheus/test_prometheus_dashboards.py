"""A real Prometheus answers every query of every panel, from one sample of each metric.

What is tried is that queries match what they put together; that programs give these metrics is
tried in the cluster (`e2e/test_watched.py`).
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from moe_core.metrics import Family, Kind
from tests.dashboards.files import Asked, asked
from tests.prometheus.server import PrometheusServer, exporting, of_exporter
from tests.reference.metrics import PROGRAMS

PROGRAM = Path(__file__).resolve().parents[2] / ".moe" / "bin" / "prometheus"
QUERIES = [pytest.param(each, id=f"{each.board}: {each.panel}") for each in asked()]
_WITHIN_S = 60.0
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


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrometheusServer]:
    if not PROGRAM.exists():
        pytest.fail("there is no prometheus to test with; run: make binaries")
    registry = CollectorRegistry()
    registry.register(Everything())
    folder = tmp_path_factory.mktemp("dashboards")
    with (
        exporting(registry) as port,
        PrometheusServer(PROGRAM, folder, of_exporter(port)) as server,
    ):
        yield server


def answer(server: PrometheusServer, expr: str) -> list[float]:
    """Return the values of a query's series, those that are numbers."""
    return [value for _, value in server.ask(expr) if not math.isnan(value)]


@pytest.mark.parametrize("each", QUERIES)
def test_a_query_has_an_answer(server: PrometheusServer, each: Asked) -> None:
    until = time.monotonic() + _WITHIN_S
    while not (found := answer(server, each.with_values({}))):
        assert time.monotonic() < until, f"no data: {each.expr}"
        time.sleep(0.2)  # a rate wants two scrapes
    assert all(math.isfinite(value) for value in found)
