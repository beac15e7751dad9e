"""Lets every mixture be looked at when something about it changes, and again in time.

cache → queue → workers, one look at a time for each mixture; a failure is tried again with
growing pauses. It knows nothing of what a look does.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from logging import ERROR, INFO, WARNING
from typing import Final

from moe_core.log import tell, tell_error
from moe_operator.cache import Cache, Key, resource_version, uid
from moe_operator.cluster import ApiError, Conflict
from moe_operator.journal import BrokenTable
from moe_operator.kinds import Body, Kind
from moe_operator.queue import WorkQueue
from moe_operator.sweep import Sweep

WORKERS: Final = 8
_RETRY_S: Final = 1.0
_SETTLE_S: Final = 2.0  # other watches begin anew at the same time
_SOONEST_S: Final = 0.02  # a look that is due again at once still lets others go first

Look = Callable[[Key], Awaitable[datetime | None]]


class Result(StrEnum):
    """How a look ended, in the words of controller-runtime."""

    SUCCESS = "success"
    REQUEUE_AFTER = "requeue_after"
    REQUEUE = "requeue"  # planned on an old view
    ERROR = "error"


def wall_clock() -> datetime:
    return datetime.now(UTC)


def _change(body: Body, gone: bool) -> tuple[str, int]:
    """Return what names a change of an object: that to a resourceVersion, or its deletion."""
    return uid(body), 0 if gone else resource_version(body)


@dataclass(slots=True)
class Engine:
    """Runs looks at mixtures for as long as its tasks run."""

    cache: Cache
    now: Callable[[], datetime] = wall_clock
    queue: WorkQueue[Key] = field(default_factory=lambda: WorkQueue(time.monotonic))
    listed: asyncio.Event = field(default_factory=asyncio.Event)
    results: Counter[Result] = field(default_factory=Counter)

    def seen(self, kind: Kind, event: str | None, body: Body) -> None:
        """Take in an event of a watch; those of a list, which may hide deletions, have no type."""
        if event is None:
            self.listed.set()
        gone = event == "DELETED"
        for key in self.cache.remove(kind, body) if gone else self.cache.put(kind, body):
            self.queue.add(key, _change(body, gone))

    def done(self, key: Key, body: Body, gone: bool) -> None:
        """Take note of what a look did itself: its event may have come before the answer."""
        self.queue.expected(key, _change(body, gone))

    def add(self, keys: Iterable[Key]) -> None:
        for key in keys:
            self.queue.add(key)

    async def fill(self, sweep: Sweep) -> tuple[Kind, ...]:
        """Read everything once, however long the API server takes to be there.

        Returns the kinds that may be read.
        """
        while True:
            try:
                kinds = await sweep.fill()
                break
            except ApiError as error:
                tell("objects_unreadable", level=WARNING, reason=error)
                await asyncio.sleep(_RETRY_S)
        tell("cache_filled", mixtures=len(self.cache.keys()))
        return kinds

    async def sweep(self, sweep: Sweep, every_s: float, settle_s: float = _SETTLE_S) -> None:
        """Compare with the API server for ever: now and then, and soon after a watch began anew."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(every_s):
                    await self.listed.wait()
            await asyncio.sleep(settle_s)
            self.listed.clear()
            try:
                await sweep.check()
            except ApiError as error:
                tell("sweep_put_off", level=WARNING, reason=error)
                self.listed.set()

    async def work(self, look: Look, workers: int = WORKERS) -> None:
        """Look at what is queued, for ever."""
        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(self._work(look))

    async def _work(self, look: Look) -> None:
        while True:
            key = await self.queue.take()
            await self.step(key, look)

    async def step(self, key: Key, look: Look) -> None:
        """Look once at a mixture that was taken from the queue."""
        result = Result.ERROR
        try:
            again_at = await look(key)
            result = Result.SUCCESS if again_at is None else Result.REQUEUE_AFTER
        except Conflict as error:
            result = Result.REQUEUE
            delay_s = self.queue.failed(key)
            _again("planned_on_old_view", INFO, key, delay_s, error)
        except ApiError as error:
            delay_s = self.queue.failed(key, error.retry_after_s)
            _again("not_carried_out", WARNING, key, delay_s, error)
        except BrokenTable as error:
            delay_s = self.queue.failed(key)
            _again("nothing_decided", ERROR, key, delay_s, error)
        except Exception:
            delay_s = self.queue.failed(key)
            tell_error("look_failed", mixture=str(key), again_in_s=round(delay_s, 1))
        except asyncio.CancelledError:
            self.queue.failed(key)
            raise
        else:
            self.queue.done(key, self._in_seconds(again_at))
        self.results[result] += 1

    def _in_seconds(self, at: datetime | None) -> float | None:
        return None if at is None else max(_SOONEST_S, (at - self.now()).total_seconds())


def _again(event: str, level: int, key: Key, delay_s: float, why: Exception) -> None:
    tell(event, level=level, mixture=str(key), again_in_s=round(delay_s, 1), reason=why)
