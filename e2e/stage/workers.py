"""Asks workers what they counted, from inside the cluster: their ports are not for outsiders."""

from __future__ import annotations

import json

from e2e.stage.tiny import Tiny

# Runs in a router's pod, which has gRPC and the protos.
_ASK = """
import json, sys, grpc
from google.protobuf.json_format import MessageToDict
from moeops.v1.worker_pb2 import DescribeWorkerRequest
from moeops.v1.worker_pb2_grpc import WorkerStub
for address in sys.argv[1:]:
    with grpc.insecure_channel(address) as channel:
        answer = WorkerStub(channel).Describe(DescribeWorkerRequest(), timeout=10)
    print(json.dumps(MessageToDict(answer.counters)))
"""


def mixed_batches(tiny: Tiny) -> int:
    """Return how many batches, over all workers, computed rows of several requests together."""
    addresses = [f"{pod['status']['podIP']}:7101" for pod in tiny.pods()]
    router = f"deployment/{tiny.mixture}-router"
    said = tiny.kube.run("exec", router, "--", "python3", "-c", _ASK, *addresses)
    return sum(int(json.loads(line).get("mixedBatches", 0)) for line in said.splitlines())
