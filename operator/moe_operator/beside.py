"""Does writes beside each other: a bounded number at once, and all of them whatever happens."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

_AT_ONCE: Final = 8  # writes under way for one mixture


async def all_of(writes: Iterable[Callable[[], Awaitable[None]]]) -> None:
    """Do writes beside each other, all of them, and raise the first error."""
    limit = asyncio.Semaphore(_AT_ONCE)

    async def one(write: Callable[[], Awaitable[None]]) -> None:
        async with limit:
            await write()

    done = await asyncio.gather(*map(one, writes), return_exceptions=True)
    for error in done:
        if isinstance(error, BaseException):
            raise error
