"""Keeps full garbage collections out of looks, by setting aside what has been there for long.

Python goes through all objects again when a quarter as many are new: with a thousand Experts in
the cache that takes longer than the look that it falls into. Set aside, they are left alone until
it is done again here; what is not in a cycle goes at once anyway. It touches no object.
"""

from __future__ import annotations

import asyncio
import gc
from typing import Final

EVERY_S: Final = 15.0


async def keep(every_s: float = EVERY_S) -> None:
    """Set aside what is there, now and again whenever much is new, for ever."""
    seen = -1
    while True:
        if _collections() != seen:
            set_aside()
            seen = _collections()
        await asyncio.sleep(every_s)


def set_aside() -> None:
    """Collect what is no longer used, also of what was set aside before, and set aside the rest."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def _collections() -> int:
    """Return how many full collections there were; while nothing happens there are none."""
    return int(gc.get_stats()[2]["collections"])
