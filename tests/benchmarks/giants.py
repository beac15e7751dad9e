"""`python -m tests.benchmarks.giants ADDRESS`: asks for many rows at once, again and again.

In a process of its own: whoever measures something beside it shares processors with it, and no
interpreter.
"""

from __future__ import annotations

import asyncio
import re
import sys
from typing import Final

import torch

from moe_client import Choice, Rows, Sequence
from moe_client.aio import RouterClient
from moe_client.tensors import to_numpy
from tests.benchmarks.dispatch import Given
from tests.support.program import Program

ROWS: Final = 8192


class GiantsProcess(Program):
    """Asks, as soon as it has been answered once."""

    LISTENING = re.compile(r"giants (.+)")


async def _ask(address: str) -> None:
    given = Given.random(ROWS)
    async with RouterClient([address], timeout_s=60) as client:
        gate = (await client.describe()).gates[0]
        index = to_numpy(given.index.to(torch.int32))
        choice = Choice(gate.sha256, index, to_numpy(given.weights))
        rows = Rows(0, to_numpy(given.hidden), (Sequence("giant", ROWS),))
        await client.dispatch(rows, choice)
        print(f"giants {address}", file=sys.stderr, flush=True)
        while True:
            await client.dispatch(rows, choice)


if __name__ == "__main__":
    asyncio.run(_ask(sys.argv[1]))
