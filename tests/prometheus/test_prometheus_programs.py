"""A real Prometheus scrapes a real router: what it stores is what the router counted."""

from __future__ import annotations

from pathlib import Path

from tests.prometheus.server import PrometheusServer, of_exporter
from tests.router import process as routers
from tests.support.collector import collector
from tests.support.dispatching import Caller, dispatch_request
from tests.support.scrape import scrape
from tests.support.tables import TableFile, expert, gate, table, version

PROGRAM = Path(__file__).resolve().parents[2] / ".moe" / "bin" / "prometheus"


def test_the_trace_of_a_request_is_stored_with_the_time_that_it_took(tmp_path: Path) -> None:
    content = table([expert("e0", version("v1"))], [gate(["e0"], top_k=1)])
    file = TableFile(tmp_path / "table.yaml", content)
    request = dispatch_request(content, [[0]])
    request.traceparent = f"00-{'ab' * 16}-{'cd' * 8}-01"
    settings = {"mixture": "tiny", "table_file": str(file.path), "workers": "127.0.0.1:1"}
    with collector() as collected, routers.spawn(collected.environment, **settings) as router:
        router.wait_for_epoch(1)
        with Caller(router.address) as caller:
            caller.dispatch(request)
        port = int(router.metrics.rpartition(":")[2])
        with PrometheusServer(PROGRAM, tmp_path, of_exporter(port)) as server:
            found = server.exemplars("moeops_router_request_duration_seconds_bucket")
        (span,) = [one for one in collected.wait_for({"request": 1}) if one.name == "request"]
    assert found == [{"trace_id": "ab" * 16, "span_id": span.span_id}]


def test_what_a_router_counts_is_stored(tmp_path: Path) -> None:
    """Nobody serves its one expert, so that a request fails and is missed by its version."""
    content = table([expert("e0", version("v1"))], [gate(["e0"], top_k=1)])
    file = TableFile(tmp_path / "table.yaml", content)
    nowhere = "127.0.0.1:1"
    with routers.spawn(mixture="tiny", table_file=str(file.path), workers=nowhere) as router:
        router.wait_for_epoch(1)
        with Caller(router.address) as caller:
            (answer,) = caller.dispatch(dispatch_request(content, [[0]]))
            assert not answer.HasField("failure")  # its tokens have the residual
        said = scrape(router.metrics)
        port = int(router.metrics.rpartition(":")[2])
        with PrometheusServer(PROGRAM, tmp_path, of_exporter(port)) as server:
            ((labels, requests),) = server.ask("moeops_router_version_requests_total")
            ((_, residual),) = server.ask('moeops_router_rung_rows_total{rung="Residual"}')
            series = server.ask('count({__name__=~"moeops_.+|process_.+"})')
            ((_, middle),) = server.ask(
                "histogram_quantile(0.5, moeops_router_request_duration_seconds_bucket)"
            )

    own = {"mixture": "tiny", "expert": "e0", "version": "v1"}
    assert own.items() <= labels.items()
    assert requests == said.value("moeops_router_version_requests_total", **own) == 1
    assert residual == 1
    assert series == [({}, len(said.samples))]
    assert 0 < middle < 8.2
