"""A table in parts on a real API server, with the rights that the operator has."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from moe_operator import access
from moe_operator.apply import Apply
from moe_operator.cache import Cache, Key
from moe_operator.cluster import Conflict, Refused
from moe_operator.engine import wall_clock
from moe_operator.journal import is_part
from moe_operator.kinds import CONTROLLER_REVISION, EXPERT, ROUTING_TABLE, Body, metadata
from moe_operator.notes import Notes
from moe_operator.reconcile import Reconcile
from moe_operator.rest import ApiServer
from moe_operator.sweep import Sweep
from moe_operator.template import Settings
from tests.operator.engine.bodies import expert, gate, mixture, sha
from tests.operator.engine.play import Asked
from tests.operator.kube.stage import Stage
from tests.support.whole import whole_table


@dataclass(slots=True)
class Looking:
    """The operator without its watches: it reads everything before each look."""

    stage: Stage
    sweep: Sweep
    asked: Asked
    look: Reconcile

    async def until(self, check: Callable[[Body], object]) -> Body:
        """Look until the whole spec of the table is so; return the stored one."""
        end = time.monotonic() + 60
        while time.monotonic() < end:
            await self.sweep.fill()
            await self.sweep.check()
            await self.asked.ask(wall_clock())
            with contextlib.suppress(Conflict):
                await self.look(Key(self.stage.namespace, "tiny"))
            for table in await self.stage.all(ROUTING_TABLE):
                if check(whole_table(table, await self.parts())["spec"]):
                    return table
            await asyncio.sleep(0.05)
        raise AssertionError("the table did not become so")

    async def parts(self) -> list[Body]:
        return [body for body in await self.stage.all(CONTROLLER_REVISION) if is_part(body)]

    def write_in_parts(self, largest: int) -> None:
        self.look = replace(self.look, apply=replace(self.look.apply, largest_table=largest))


@contextlib.asynccontextmanager
async def looking(stage: Stage) -> AsyncIterator[Looking]:
    async with access.open_session(stage.account(), 8) as session:
        api, cache, asked = ApiServer(session, stage.server.url), Cache(), Asked(stage.nodes)
        apply = Apply(api, api, cache, Notes(api, cache, wall_clock), largest_table=0)
        settings = Settings("worker", "router", "evaluator")
        look = Reconcile(cache, asked, apply, settings, wall_clock)
        sweep = Sweep(api, cache, (stage.namespace,), lambda keys: None)
        yield Looking(stage, sweep, asked, look)
    await asyncio.sleep(0.05)


def serves(version: str) -> Callable[[Body], bool]:
    def check(spec: Body) -> bool:
        rows: dict[str, Any] = {row["expertId"]: row for row in spec["experts"]}
        stable = (rows["e0"].get("stable") or {}).get("version")
        return stable == version and bool(spec["gates"]) and "previous" not in rows["e0"]

    return check


async def test_a_table_goes_into_parts_changes_and_comes_back(stage: Stage) -> None:
    quick = {"steps": [{"weightPercent": 100, "pauseSeconds": 0}], "scaleDownDelaySeconds": 0}
    await stage.apply(mixture(), expert("e0", sha("a"), rollout=quick))
    await stage.apply(expert("e1", sha("c")), gate("e0", "e1"))
    async with looking(stage) as operator:
        head = await operator.until(serves("v1"))
        assert set(head["spec"]) == {"mixture", "epoch", "parts"}
        first = set(head["spec"]["parts"])

        version = {"version": "v2", "artifact": {"uri": "file:///v2", "sha256": sha("b")}}
        patch = {"rollout": {**quick, "minRequests": 0}, **version}
        await stage.patch(EXPERT, "tiny-e0", {"spec": patch})
        second = (await operator.until(serves("v2")))["spec"]["parts"]
        assert len(first.intersection(second)) == len(first) - 1

        await operator.until(lambda _: True)
        kept = await operator.parts()
        assert len(kept) == len(second)
        altered = {**kept[0], "data": {**kept[0]["data"], "epoch": 99}}
        with pytest.raises(Refused, match="data"):
            await stage.api.replace(CONTROLLER_REVISION, altered)

        operator.write_in_parts(1_000_000)
        await stage.patch(EXPERT, "tiny-e0", {"spec": {"backupExpertId": "e1"}})
        whole = await operator.until(lambda spec: any("backup" in r for r in spec["experts"]))
        assert "parts" not in whole["spec"]
        while await operator.parts():
            await operator.until(lambda _: True)
        assert metadata(whole)["uid"] == metadata(head)["uid"]
