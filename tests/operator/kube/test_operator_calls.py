"""How often the operator writes: for each of many objects as often as of few, never when idle."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter

import pytest

from moe_operator.kinds import MIXTURE, ROUTING_TABLE, Body
from tests.kube.server import KubeServer
from tests.operator.engine.bodies import expert, gate, mixture, sha
from tests.operator.kube.stage import Stage, staged

FEW, MANY = 10, 100
STATUSES = 6  # of each Expert: locked, waiting, pods that come, serving
TABLES = 20  # of however many experts: those that come up at once are one table


def objects(count: int) -> list[Body]:
    ids = [f"e{number:04d}" for number in range(count)]
    return [mixture(), *(expert(expert_id, sha("a")) for expert_id in ids), gate(*ids)]


def all_serve(count: int, table: Body) -> bool:
    rows, gates = table["spec"]["experts"], table["spec"]["gates"]
    return bool(gates) and len(rows) == count and all("stable" in row for row in rows)


def says_all_is_well(body: Body, count: int) -> bool:
    conditions = {c["type"]: c["status"] for c in body["status"]["conditions"]}
    ready = bool(body["status"].get("experts") == f"{count}/{count}")
    return ready and conditions["Ready"] == "True" and conditions["Degraded"] == "False"


def writes(stage: Stage, place: int) -> Counter[str]:
    """Return what the operator wrote, but for Events."""
    return Counter(
        f"{request.verb} {request.resource}/{request.subresource}".rstrip("/")
        for request in stage.requests(place)
        if request.resource != "events"
    )


async def brought_up(server: KubeServer, count: int) -> tuple[Counter[str], list[str]]:
    """Serve so many experts; return the writes that it took, and the writes when all is done."""
    namespace = f"test-{uuid.uuid4().hex[:10]}"
    await asyncio.to_thread(server.create_namespace, namespace)
    async with staged(server, namespace) as stage:
        await stage.apply(*objects(count))
        place = server.audit.position()
        stage.start()
        await stage.until(ROUTING_TABLE, "tiny", lambda t: all_serve(count, t), 100)
        await stage.until(MIXTURE, "tiny", lambda m: says_all_is_well(m, count), 100)
        still = await stage.quiet(4)
        took = writes(stage, place)
        await asyncio.sleep(3)
        return took, stage.writes(still)


@pytest.mark.timeout(400)
async def test_writes_for_each_object_are_as_many_for_100_as_for_10(installed: KubeServer) -> None:
    few, idle = await brought_up(installed, FEW)
    assert idle == []
    many, idle = await brought_up(installed, MANY)
    assert idle == []
    for count, written in ((FEW, few), (MANY, many)):
        tables = written["update routingtables"]
        assert tables <= TABLES
        # One of each expert, one of the gate, and the epochs that were served.
        assert count + 1 < written["create controllerrevisions"] <= count + 1 + tables
        assert written["patch deployments"] == 2 * count + 1  # applied, and stamped when named
        assert written["patch poddisruptionbudgets"] == count + 1  # those of routers, too
        assert count <= written["patch experts/status"] <= STATUSES * count
