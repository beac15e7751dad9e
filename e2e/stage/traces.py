"""Traces of requests, without a collector to send them to: metrics name them as exemplars."""

from __future__ import annotations

from typing import Final

from e2e.stage.kube import Kube

# Nobody listens there, which must be nobody's concern.
TRACED: Final = [
    {"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "http://127.0.0.1:4317"},
    {"name": "OTEL_TRACES_SAMPLER", "value": "parentbased_traceidratio"},
    {"name": "OTEL_TRACES_SAMPLER_ARG", "value": "0.25"},
]

# Runs in the pod: its port for metrics is not for outsiders.
_ASK = """
import sys, urllib.request
request = urllib.request.Request(
    f"http://127.0.0.1:{sys.argv[1]}/metrics",
    headers={"Accept": "application/openmetrics-text;version=1.0.0"},
)
print(urllib.request.urlopen(request, timeout=10).read().decode().count("trace_id="))
"""


def named_traces(kube: Kube, pod: str, port: int) -> int:
    """Return how many exemplars the metrics of `pod/NAME` or `deployment/NAME` have."""
    return int(kube.run("exec", pod, "--", "python3", "-c", _ASK, str(port)))
