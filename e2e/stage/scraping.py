"""Runs a real Prometheus beside the cluster, which scrapes all programs of ours in it.

Pods are reached by the API server's proxy, so that nothing needs to be built or installed for it.
Debian's Prometheus does not know Kubernetes; so it asks here which pods there are, and gets the
labels that the chart's PodMonitors would give.
"""

from __future__ import annotations

import base64
import json
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import yaml

from e2e.stage.kube import Body
from tests.prometheus.server import PrometheusServer

PROGRAM = Path(__file__).resolve().parents[2] / ".moe" / "bin" / "prometheus"
_EVERY = "5s"


@contextmanager
def prometheus(folder: Path, rules: Path) -> Iterator[PrometheusServer]:
    """Have one that scrapes the cluster that KUBECONFIG names, and evaluates rules."""
    config = _kubectl("config", "view", "--raw", "--minify", "--flatten")
    address = config["clusters"][0]["cluster"]["server"].removeprefix("https://")

    def found() -> list[Body]:
        ours = ("get", "pods", "--all-namespaces", "--selector=app.kubernetes.io/name=moeops")
        return list(targets(_kubectl(*ours)["items"], address))

    with telling(found) as where:
        text = yaml.safe_dump(configuration(config, where, folder, rules))
        with PrometheusServer(PROGRAM, folder, text) as server:
            yield server


def _kubectl(*words: str) -> Body:
    command = ["kubectl", *words, "--output=json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    said: Body = json.loads(done.stdout)
    return said


def configuration(kubeconfig: Body, where: str, folder: Path, rules: Path) -> Body:
    """Return what Prometheus is to do, for a flattened kubeconfig of one cluster and user.

    `where` is the URL at which it asks for its targets.
    """
    cluster, user = kubeconfig["clusters"][0]["cluster"], kubeconfig["users"][0]["user"]
    tls = {"ca_file": _written(folder, "ca", cluster["certificate-authority-data"])}
    if "client-certificate-data" in user:
        tls["cert_file"] = _written(folder, "cert", user["client-certificate-data"])
        tls["key_file"] = _written(folder, "key", user["client-key-data"])
    job = {
        "job_name": "moeops",
        "scheme": "https",
        "tls_config": tls,
        **({"authorization": {"credentials": user["token"]}} if "token" in user else {}),
        "http_sd_configs": [{"url": where, "refresh_interval": _EVERY}],
    }
    timing = dict.fromkeys(("scrape_interval", "scrape_timeout", "evaluation_interval"), _EVERY)
    return {"global": timing, "rule_files": [str(rules)], "scrape_configs": [job]}


def _written(folder: Path, name: str, data: str) -> str:
    file = folder / f"{name}.pem"
    file.touch(mode=0o600)
    file.write_bytes(base64.b64decode(data))
    return str(file)


def targets(pods: Iterable[Body], server: str) -> Iterator[Body]:
    """Give what Prometheus is told of each pod that names a port for metrics."""
    for pod in pods:
        meta, ports = pod["metadata"], pod["spec"]["containers"][0].get("ports", ())
        own = meta["labels"]
        for number in (p["containerPort"] for p in ports if p.get("name") == "metrics"):
            path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}:{number}/proxy"
            job = own.get("moeops.dev/component") or own["app.kubernetes.io/component"]
            yield {
                "targets": [server],
                "labels": {
                    "__metrics_path__": f"{path}/metrics",
                    "job": job,
                    "instance": meta["name"],
                    "namespace": meta["namespace"],
                    "pod": meta["name"],
                },
            }


@contextmanager
def telling(found: Callable[[], Any]) -> Iterator[str]:
    """Answer whoever asks with what `found` gives, as JSON, and give the URL for that."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(found()).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing: it is asked every five seconds."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()
