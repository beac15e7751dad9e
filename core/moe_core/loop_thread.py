"""An event loop in a thread of its own, for programs whose own threads wait for what it does."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class Stopped(RuntimeError):
    """Nothing more runs on the loop."""


class LoopThread:
    """A running loop, a new one unless it is given, in a daemon thread."""

    def __init__(self, name: str, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self.loop = asyncio.new_event_loop() if loop is None else loop
        self._thread = threading.Thread(target=self.loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Start `work` on the loop; safe from any thread but the loop's. Raises Stopped."""
        try:
            return asyncio.run_coroutine_threadsafe(work, self.loop)
        except RuntimeError:
            if not self.loop.is_closed():
                raise
            work.close()
            raise Stopped("the loop was stopped") from None

    def stop(self) -> None:
        """End the thread; what still runs on the loop is cancelled."""
        self.submit(_cancel_others()).result()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
