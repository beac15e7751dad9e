"""Asks workers what they counted, from inside the cluster: their ports are not for outsiders."""

from __future__ import annotations

from e2e.stage.tiny import Tiny

# Runs in a router's pod.
_ASK = """
import sys, urllib.request
for address in sys.argv[1:]:
    for line in urllib.request.urlopen(f"http://{address}/metrics", timeout=10):
        if line.startswith(b"moeops_worker_mixed_batches_total{"):
            print(line.split()[-1].decode())
"""


def mixed_batches(tiny: Tiny) -> int:
    """Return how many batches, over all workers, computed rows of several requests together."""
    addresses = [f"{pod['status']['podIP']}:7102" for pod in tiny.pods()]
    router = f"deployment/{tiny.mixture}-router"
    said = tiny.kube.run("exec", router, "--", "python3", "-c", _ASK, *addresses)
    return sum(int(float(line)) for line in said.splitlines())
