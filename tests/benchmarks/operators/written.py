"""Watches the tables of a namespace, and says when one became as it was waited for."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import aiohttp

from moe_operator.cluster import ApiError
from moe_operator.kinds import Body, Kind, metadata
from moe_operator.rest import ApiServer

_LONGEST_LINE = 1 << 24


@dataclass(slots=True)
class Written:
    """The newest tables by name; `seen` is told of each, as routers would see it."""

    api: ApiServer
    kind: Kind
    namespace: str
    seen: Callable[[dict[str, Body]], None] = lambda _: None
    tables: dict[str, Body] = field(default_factory=dict)
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)
    _at: float = 0.0

    async def run(self) -> None:
        """Follow the tables, for ever; a watch that ends or fails begins anew."""
        while True:
            with contextlib.suppress(ApiError, aiohttp.ClientError):
                found, version = await self.api.list_all(self.kind, self.namespace, brief=False)
                await self._take(*found)
                await self._watch(version)
            await asyncio.sleep(0.1)

    async def until(self, check: Callable[[dict[str, Body]], object]) -> float:
        """Wait until the tables are so; return when the one that made it so arrived here."""
        async with self._news:
            await self._news.wait_for(lambda: check(self.tables))
            return self._at

    async def _watch(self, version: int) -> None:
        params = {"watch": "1", "resourceVersion": str(version), "timeoutSeconds": "300"}
        if self.kind.selector:
            params["labelSelector"] = self.kind.selector
        async with self.api.session.get(
            self.api.server + self.kind.path(self.namespace),
            params=params,
            read_bufsize=_LONGEST_LINE,
            timeout=aiohttp.ClientTimeout(total=None),
        ) as answer:
            async for line in answer.content:
                event = json.loads(line)
                if event["type"] in ("ADDED", "MODIFIED"):
                    await self._take(event["object"])

    async def _take(self, *bodies: Body) -> None:
        self._at = time.perf_counter()
        self.tables.update({str(metadata(body)["name"]): body for body in bodies})
        self.seen(self.tables)
        async with self._news:
            self._news.notify_all()
