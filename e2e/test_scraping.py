"""A real Prometheus scrapes the real programs in the cluster: all of them, and what they count."""

from __future__ import annotations

from pathlib import Path

from e2e.stage.kube import wait_for
from e2e.stage.scraping import prometheus
from e2e.stage.tiny import Tiny
from moe_client.recording import Recording


def test_routers_workers_and_operators_are_scraped_under_load(
    tiny: Tiny, scripture: Recording, tmp_path: Path
) -> None:
    programs = {pod["metadata"]["name"] for pod in (*tiny.pods(), *tiny.pods(component="router"))}
    with prometheus(tmp_path) as server, tiny.load(scripture) as load:

        def up() -> set[str]:
            return {labels["pod"] for labels, value in server.ask("up") if value == 1}

        def jobs() -> set[str]:
            return {labels["job"] for labels, value in server.ask("up") if value == 1}

        def total(query: str) -> float:
            return sum(value for _, value in server.ask(query))

        wait_for("all are scraped", lambda: programs <= up(), 60, interval_s=1)
        assert jobs() == {"operator", "router", "worker"}
        wait_for(
            "what is counted rises",
            lambda: (
                total("rate(moeops_router_stage_duration_seconds_count[30s])") > 0
                and total("rate(moeops_worker_rows_total[30s])") > 0
                and total("controller_runtime_reconcile_total") > 0
            ),
            90,
            interval_s=1,
        )
        assert load.report().failed == 0, load.report().failures
