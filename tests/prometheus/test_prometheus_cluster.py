"""The Prometheus of the scenarios reaches our pods through an API server's proxy.

The API server itself is only tried in the cluster: `e2e/test_watched.py`.
"""

from __future__ import annotations

import time
from base64 import b64encode
from pathlib import Path
from typing import Any

import yaml
from prometheus_client import CollectorRegistry

from e2e.stage.kube import wait_for
from e2e.stage.scraping import PROGRAM, configuration, targets, telling
from e2e.stage.watching import Watch, hastened
from tests.dashboards.files import ALERTS
from tests.prometheus.server import PrometheusServer, exporting


def pod(name: str, labels: dict[str, str], **ports: int) -> dict[str, Any]:
    listed = [{"name": port, "containerPort": number} for port, number in ports.items()]
    return {
        "metadata": {"name": name, "namespace": "moe", "labels": labels},
        "spec": {"containers": [{"name": "main", "ports": listed}]},
    }


PODS = [
    pod("r", {"moeops.dev/component": "router"}, grpc=7000, metrics=7002),
    pod("o", {"app.kubernetes.io/component": "operator"}, health=8080, metrics=8081),
    pod("old", {"moeops.dev/component": "worker"}, link=7100),
]


def test_pods_are_named_as_pod_monitors_do() -> None:
    found = {each["labels"]["pod"]: each for each in targets(PODS, "api:6443")}
    assert found.keys() == {"r", "o"}, "a pod without a port for metrics is left out"
    assert found["r"] == {
        "targets": ["api:6443"],
        "labels": {
            "__metrics_path__": "/api/v1/namespaces/moe/pods/r:7002/proxy/metrics",
            "job": "router",
            "instance": "r",
            "namespace": "moe",
            "pod": "r",
        },
    }
    assert found["o"]["labels"]["job"] == "operator"


def test_a_real_prometheus_scrapes_them_so(tmp_path: Path) -> None:
    """prometheus-client answers at every path; so it stands for the API server."""
    user = {"token": "t"}
    kubeconfig = {
        "clusters": [{"cluster": {"certificate-authority-data": b64encode(b"").decode()}}],
        "users": [{"user": user}],
    }
    (tmp_path / "alerts.yaml").write_text(hastened(ALERTS.read_text()))
    with exporting(CollectorRegistry()) as port:
        told = list(targets(PODS, f"127.0.0.1:{port}"))
        with telling(lambda: told) as where:
            config = configuration(kubeconfig, where, tmp_path, tmp_path / "alerts.yaml")
            (job,) = config["scrape_configs"]
            assert job["authorization"] == {"credentials": "t"}
            job["scheme"] = "http"
            job.pop("tls_config")
            with PrometheusServer(PROGRAM, tmp_path, yaml.safe_dump(config)) as server:
                (first, *_) = server.ask("up")
                watch = Watch(server, time.monotonic() - 60)
                fired = wait_for("nobody leads here", lambda: watch.fired() or None, 60)

    assert fired == {"MoeOperatorWithoutLeader"}
    labels, up = first
    assert up == 1
    assert labels | {"__name__": "up"} in (
        {"__name__": "up", **{k: v for k, v in each["labels"].items() if k[0] != "_"}}
        for each in told
    )
