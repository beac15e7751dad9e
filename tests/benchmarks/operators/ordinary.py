"""The plain kopf operator of `plain.py`, with rights of its own."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from moe_operator.kinds import Body, Kind
from tests.benchmarks.operators.measure import Bench
from tests.benchmarks.operators.process import Program
from tests.kube.server import KubeServer
from tests.operator.kube.stage import SYSTEM

ACCOUNT = "plain-kopf"
KIND = Kind("ConfigMap", "", "v1", "configmaps")
_FILE = str(Path(__file__).with_name("plain.py"))
PROGRAM = Program(
    "plain kopf", (sys.executable, "-m", "kopf", "run", "--standalone", _FILE), ACCOUNT
)


def install(server: KubeServer) -> None:
    """Let it do everything."""
    path = f"/api/v1/namespaces/{SYSTEM}/serviceaccounts"
    server.request("POST", path, {"metadata": {"name": ACCOUNT}})
    group = "rbac.authorization.k8s.io"
    binding = {
        "metadata": {"name": ACCOUNT},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": SYSTEM}],
    }
    server.request("POST", f"/apis/{group}/v1/clusterrolebindings", binding)


def asked(tables: Mapping[str, Body]) -> dict[str, str]:
    """Return the version of each expert."""
    rows = [row for table in tables.values() for row in json.loads(table["data"]["table"])]
    return {row["expertId"]: row["version"] for row in rows}


async def measure(bench: Bench) -> None:
    """Fill in the figures; its way back is a change as any other."""
    tables = bench.written.tables
    with bench.running() as process:
        await bench.start(process, lambda: len(asked(tables)) == bench.crowd.count)
        await bench.idle(process)
        await bench.change(process, "v3-")
    await bench.restart()
