"""Watches the API server with kopf, and hands over each event as it came.

kopf keeps the streams alive; nothing else of it is used: no finalizer, no annotation and no Event
is ever written by it. It runs in a thread with a loop of its own, so that when a stream fails in
a way it takes for fatal, only the watching starts again.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import kopf

from moe_core.log import tell_error
from moe_operator import access
from moe_operator.kinds import Body, Kind

# (kind, type of the event, object); the type is None for what was there before.
Seen = Callable[[Kind, str | None, Body], None]

_CONNECTIONS: Final = 256
_RESTART_S: Final = 1.0
_TELL_S: Final = 10.0
_CLOSING_S: Final = 0.05  # connections that were closed need the loop a little longer


class _ForEver:
    """Pauses between attempts to reach the API server, without an end."""

    def __iter__(self) -> Iterator[float]:
        return itertools.chain((0.1, 0.2, 0.5, 1.0), itertools.repeat(2.0))


class _Seldom(logging.Filter):
    """Lets a line pass now and then: each of a dozen watches tells each of its attempts."""

    def __init__(self, every_s: float) -> None:
        super().__init__()
        self._every_s = every_s
        self._next = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        passes = record.created >= self._next
        if passes:
            self._next = record.created + self._every_s
        return passes


@dataclass(slots=True)
class Watch:
    """Watches objects in these namespaces, in all where there are none."""

    find: access.Find
    namespaces: tuple[str, ...]
    seen: Seen  # called in the watching thread
    _kinds: tuple[Kind, ...] = ()
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self, kinds: tuple[Kind, ...]) -> None:
        """Watch these kinds until stopped."""
        self._kinds = kinds
        # The process' signals are the main thread's; kopf warns that it does not get them.
        logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)
        logging.getLogger("kopf._cogs.clients.watching").addFilter(_Seldom(_TELL_S))
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """End the watching; what has not ended in time ends with the process."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout_s)

    @property
    def started(self) -> bool:
        return self._thread is not None

    @property
    def alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                asyncio.run(self._watch())
            except Exception:
                tell_error("watch_failed", again_in_s=_RESTART_S)
                time.sleep(_RESTART_S)

    async def _watch(self) -> None:
        await kopf.operator(
            registry=_registry(self.find, self._kinds, self.seen),
            settings=_settings(self._kinds),
            clusterwide=not self.namespaces,
            namespaces=self.namespaces,
            standalone=True,
            stop_flag=self._stop,
        )
        await asyncio.sleep(_CLOSING_S)


def _settings(kinds: tuple[Kind, ...]) -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.peering.standalone = True
    settings.watching.inactivity_timeout = 70
    settings.watching.connect_timeout = 5
    settings.networking.connect_timeout = 5
    settings.networking.error_backoffs = _ForEver()
    settings.queueing.exit_timeout = 0.2
    settings.queueing.idle_timeout = 1.0
    settings.process.ultimate_exiting_timeout = None
    for kind in kinds:
        if kind.selector:
            settings.watching.label_selectors[kind.group, kind.version, kind.plural] = kind.selector
    return settings


def _registry(find: access.Find, kinds: tuple[Kind, ...], seen: Seen) -> kopf.OperatorRegistry:
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.AiohttpSession:
        session = access.open_session(find, _CONNECTIONS)
        return kopf.AiohttpSession(server=find().server, aiohttp_session=session)

    for kind in kinds:
        _handle(registry, kind, seen)
    return registry


def _handle(registry: kopf.OperatorRegistry, kind: Kind, seen: Seen) -> None:
    @kopf.on.event(kind.group, kind.version, kind.plural, registry=registry, id=kind.plural)
    async def handle(event: kopf.RawEvent, **_: Any) -> None:
        seen(kind, event["type"], event["object"])
