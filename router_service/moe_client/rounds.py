"""Asks one router after another until one answers: for questions that any of them can answer.

Round after round, with growing pauses, until the time is over. What is asked is not its matter.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import TypeVar

import grpc

from moe_client import retry
from moe_client.errors import MoeError, from_code
from moe_client.handshake import explained
from moe_client.router import Router

T = TypeVar("T")

NOT_NAMED = frozenset({grpc.StatusCode.NOT_FOUND})
"""Another router may have a newer table; where none has, asking again is of no use."""


async def first_answer(
    routers: Mapping[str, Router],
    ask: Callable[[Router], Awaitable[T]],
    session: str,
    timeout_s: float,
    passed: Collection[grpc.StatusCode] = retry.ABSENT,
) -> T:
    """Return what the first of the routers says, the one of `session` being asked first.

    `passed` are refusals after which the next one is asked. Raises MoeError: the last refusal.
    """
    deadline = asyncio.get_running_loop().time() + timeout_s
    rounds = 0
    while True:
        refusals: list[MoeError] = []
        for router in _in_order(routers, session):
            try:
                return await ask(router)
            except grpc.aio.AioRpcError as error:
                text = f"router {router.address}: {explained(error.details())}"
                refusals.append(from_code(error.code(), text))
                if error.code() not in passed:
                    raise refusals[-1] from None
        wait_s = retry.backoff(rounds, random.random())
        hopeless = all(refusal.code not in retry.ABSENT for refusal in refusals)
        if hopeless or asyncio.get_running_loop().time() + wait_s > deadline:
            raise refusals[-1]
        await asyncio.sleep(wait_s)
        rounds += 1


def _in_order(routers: Mapping[str, Router], session: str) -> list[Router]:
    """Return the routers, that of the session first; without one as they were given."""
    if not session:
        return list(routers.values())
    first = retry.choose({a: router.health for a, router in routers.items()}, session, ())
    return [routers[first], *(r for address, r in routers.items() if address != first)]
