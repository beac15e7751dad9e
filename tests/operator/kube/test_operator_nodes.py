"""What spreading pods needs of a real API server: to see nodes, and to give a pod up as seen."""

from __future__ import annotations

import asyncio
import queue

import pytest

from moe_operator import access
from moe_operator.cluster import Conflict
from moe_operator.kinds import MIXTURE, NODE, POD
from moe_operator.rest import ApiServer
from moe_operator.watch import Watch
from tests.operator.kube.stage import Stage


async def test_nodes_are_watched_also_by_an_operator_of_one_namespace(stage: Stage) -> None:
    seen: queue.Queue[str] = queue.Queue()
    watch = Watch(
        stage.account(),
        (stage.namespace,),
        lambda kind, _, body: seen.put(body["metadata"]["name"]),
    )
    watch.start((MIXTURE, NODE))
    try:
        made = await stage.add_node()
        while await asyncio.to_thread(seen.get, timeout=30) != made:
            pass
    finally:
        await asyncio.to_thread(watch.stop, 5)


async def test_a_pod_is_given_up_only_as_it_was_seen(stage: Stage) -> None:
    container = {"name": "worker", "image": "worker"}
    meta = {"name": "w", "namespace": stage.namespace}
    seen = await stage.api.create(POD, {"metadata": meta, "spec": {"containers": [container]}})
    changed = await stage.api.merge(
        POD, stage.namespace, "w", {"metadata": {"labels": {"new": "yes"}}}
    )
    find = stage.account()
    async with access.open_session(find, 1) as session:
        operator = ApiServer(session, find().server)
        with pytest.raises(Conflict):
            await operator.delete(POD, seen)
        await operator.delete(POD, changed)
    await stage.gone(POD, "w")
    await asyncio.sleep(0.05)  # connections that were closed need the loop a little longer
