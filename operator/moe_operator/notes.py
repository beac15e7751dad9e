"""Tells people what happened, as Kubernetes Events: in the background, and each thing once.

Losing one loses nothing but a line to read: they wait for nobody, and where there are too many or
the API server does not take them, they are dropped.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import uuid4

from moe_core.log import tell
from moe_operator.cache import Cache, uid
from moe_operator.cluster import ApiError, Writer
from moe_operator.intent import Note
from moe_operator.kinds import EVENT, KINDS, Body

_WAITING: Final = 500
_REMEMBERED: Final = 5000
_QUIET: Final = timedelta(minutes=10)  # the same sentence is not told again within
_LONGEST: Final = 1024  # what the API server takes as a message


@dataclass(slots=True)
class Notes:
    """Events to be told; `run` posts them."""

    writer: Writer
    cache: Cache
    now: Callable[[], datetime]
    reporter: str = "moeops-operator"
    _told: OrderedDict[tuple[str, Note], datetime] = field(default_factory=OrderedDict)
    _waiting: asyncio.Queue[dict[str, Any]] = field(
        default_factory=lambda: asyncio.Queue(maxsize=_WAITING)
    )

    def tell(self, namespace: str, note: Note) -> None:
        """Let an Event be posted, unless the same was a short while ago."""
        about = self.cache.get(KINDS[note.kind], namespace, note.name)
        if about is None or not self._new((namespace, note)):
            return
        level = logging.WARNING if note.warning else logging.INFO
        where = f"{note.kind}/{namespace}/{note.name}"
        tell("note", level=level, about=where, reason=note.reason, message=note.message)
        try:
            self._waiting.put_nowait(self._event(namespace, note, about))
        except asyncio.QueueFull:
            tell("event_dropped", level=logging.WARNING, about=where)

    async def run(self) -> None:
        """Post Events for ever."""
        while True:
            event = await self._waiting.get()
            try:
                await self.writer.create(EVENT, event)
            except ApiError as error:
                tell("event_not_taken", level=logging.WARNING, reason=error)

    def _new(self, what: tuple[str, Note]) -> bool:
        now = self.now()
        last = self._told.pop(what, None)
        self._told[what] = now
        if len(self._told) > _REMEMBERED:
            self._told.popitem(last=False)
        return last is None or now - last > _QUIET

    def _event(self, namespace: str, note: Note, about: Body) -> dict[str, Any]:
        stamp = self.now().strftime("%Y-%m-%dT%H:%M:%SZ")
        kind = KINDS[note.kind]
        return {
            "apiVersion": EVENT.api_version,
            "kind": EVENT.name,
            "metadata": {"name": f"{note.name}.{uuid4().hex[:16]}", "namespace": namespace},
            "involvedObject": {
                "apiVersion": kind.api_version,
                "kind": kind.name,
                "namespace": namespace,
                "name": note.name,
                "uid": uid(about),
            },
            "type": "Warning" if note.warning else "Normal",
            "reason": note.reason,
            "message": note.message[:_LONGEST],
            "source": {"component": self.reporter},
            "reportingComponent": self.reporter,
            "reportingInstance": self.reporter,
            "firstTimestamp": stamp,
            "lastTimestamp": stamp,
            "count": 1,
        }
