"""What lives long is set aside from garbage collections, and goes all the same when it is over."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator

import pytest

from moe_operator import heap


class Knot:
    """Refers to itself: only a collection finds that nobody else does."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    yield
    gc.unfreeze()


def test_what_is_set_aside_is_collected_when_it_is_done_again() -> None:
    knot = Knot()
    heap.set_aside()
    assert gc.get_freeze_count() > 0
    alive = weakref.ref(knot)
    del knot
    gc.collect()
    assert alive() is not None
    heap.set_aside()
    assert alive() is None


async def test_it_is_done_at_once_and_again_only_where_much_is_new() -> None:
    keeping = asyncio.create_task(heap.keep(every_s=0.0))
    await asyncio.sleep(0)
    first = gc.get_stats()[2]["collections"]
    assert gc.get_freeze_count() > 0
    gc.disable()
    try:
        for _ in range(3):
            await asyncio.sleep(0)
        assert gc.get_stats()[2]["collections"] == first
        gc.collect()
        for _ in range(3):
            await asyncio.sleep(0)
        assert gc.get_stats()[2]["collections"] == first + 2
    finally:
        gc.enable()
        keeping.cancel()
