"""A real Prometheus answers every query of every panel, from one sample of each metric.

What is tried is that queries match what they put together; that programs give these metrics is
tried in the cluster (`e2e/test_watched.py`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.dashboards.files import Asked, asked
from tests.prometheus.everything import registry
from tests.prometheus.server import PrometheusServer, exporting, of_exporter

PROGRAM = Path(__file__).resolve().parents[2] / ".moe" / "bin" / "prometheus"
QUERIES = [pytest.param(each, id=f"{each.board}: {each.panel}") for each in asked()]
_WITHIN_S = 60.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrometheusServer]:
    if not PROGRAM.exists():
        pytest.fail("there is no prometheus to test with; run: make binaries")
    folder = tmp_path_factory.mktemp("dashboards")
    with (
        exporting(registry()) as port,
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
