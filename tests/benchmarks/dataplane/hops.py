"""A hop of one request, beside its floors, and with the router in the client's process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final

import torch

from moe_artifacts.artifact import read_expert
from moe_client import Choice, RouterClient, Rows, Sequence, aio
from moe_client.tensors import to_numpy
from moe_core.dtypes import BFLOAT16
from moe_core.kernel import ExpertKernel
from moe_worker.expert import Rules, load
from tests.benchmarks.dataplane.table import Bench, Row
from tests.benchmarks.dispatch import HIDDEN, TOP_K, Given
from tests.benchmarks.echo import GrpcEcho, LinkEcho, message
from tests.benchmarks.measure import in_turns
from tests.client.served import Served, embedded

HEADERS: Final = 200  # bytes of a message besides rows, indices and weights, about


def hops(bench: Bench) -> Iterator[Row]:
    """Measure a hop and its floors."""
    client = aio.RouterClient(bench.served.addresses)
    grpc_port, link_port = bench.echo.told
    link = LinkEcho(link_port)

    async def stream() -> GrpcEcho:
        return GrpcEcho(grpc_port)

    over_grpc = bench.loop.run_until_complete(stream())
    goals: dict[int, float] = {1: 200, 16: 250}
    for rows in (1, 16, 256, 1024):
        given = Given.random(rows)
        ask, compute, share = asking(bench, client, given), *_computing(bench.served, given)
        body = rows * HIDDEN * 2
        sent = message(body + rows * TOP_K * 8 + HEADERS, body + HEADERS)
        part = message(share * HIDDEN * 2 + HEADERS, share * HIDDEN * 2 + HEADERS)
        ways: dict[str, Callable[[], object]] = {
            "hop": ask,
            "grpc": partial(bench.wait_for, over_grpc.ask, sent),
            "link": partial(link.ask, part),
            "compute": compute,
        }
        took = {
            name: timing.p50_us
            for name, timing in in_turns(ways, rounds=bench.rounds, seconds=bench.seconds).items()
        }
        floor = took["grpc"] + took["link"] + took["compute"]
        added = took["hop"] - floor
        parts = ", ".join(f"{name} {took[name]:,.0f}" for name in ("grpc", "link", "compute"))
        said = f"{added:+,.0f} µs: hop {took['hop']:,.0f} − ({parts})"
        if rows in goals:
            yield Row(
                f"added by the router, T = {rows}",
                said,
                f"≤ {goals[rows]:.0f} µs",
                added <= goals[rows],
            )
        else:
            yield Row(
                f"added by the router, T = {rows}",
                f"{added / floor:+.0%}; {said}",
                "≤ 25% on top",
                added <= 0.25 * floor,
            )
    bench.loop.run_until_complete(over_grpc.close())
    bench.loop.run_until_complete(client.close())
    link.close()


def inside(bench: Bench) -> Iterator[Row]:
    """Measure a hop with the router in this process, beside the same through the other one."""
    with ExitStack() as stack:
        with bench.cores.anywhere():
            router = stack.enter_context(embedded(bench.served))
        near = stack.enter_context(RouterClient(router))
        far = aio.RouterClient(bench.served.addresses)
        for rows in (1, 16):
            given = Given.random(rows)
            rows_, choice = _question(near.describe().gates[0].sha256, given)
            ways: dict[str, Callable[[], object]] = {
                "inside": partial(near.dispatch, rows_, choice),
                "hop": asking(bench, far, given),
                "compute": _computing(bench.served, given)[0],
            }
            timings = in_turns(ways, rounds=bench.rounds, seconds=bench.seconds)
            took = {name: timing.p50_us for name, timing in timings.items()}
            yield Row(
                f"whole hop with the router in the client's process, T = {rows}",
                f"{took['inside']:,.0f} µs, of which compute {took['compute']:,.0f}; "
                f"through a router elsewhere {took['hop']:,.0f}",
                "≤ 200 µs" if rows == 1 else "",
                took["inside"] <= 200 if rows == 1 else None,
            )
        bench.loop.run_until_complete(far.close())


def asking(bench: Bench, client: aio.RouterClient, given: Given) -> Callable[[], object]:
    gate = bench.loop.run_until_complete(client.describe()).gates[0]
    rows, choice = _question(gate.sha256, given)
    return partial(bench.wait_for, client.dispatch, rows, choice)


def _question(gate: str, given: Given) -> tuple[Rows, Choice]:
    choice = Choice(gate, to_numpy(given.index.to(torch.int32)), to_numpy(given.weights))
    hidden = to_numpy(given.hidden)
    return Rows(0, hidden, (Sequence("bench", len(hidden)),)), choice


def _computing(served: Served, given: Given) -> tuple[Callable[[], object], int]:
    """Return what the busier worker computes of these rows, and its share of (row, slot) pairs."""
    names = [entry.name for entry in served.index.entries if entry.role is not None]
    paths = {e.name: Path(e.uri.removeprefix("file://")) for e in served.index.entries}
    rules, work = Rules(BFLOAT16, exact=True), []
    for first in (0, 1):
        mine = []
        for name in names[first::2]:
            rows = given.hidden[(given.index == names.index(name)).any(1)]
            if len(rows):
                mine.append((load(read_expert(paths[name]), [0], rules)[0], rows))
        work.append(mine)
    busier: list[tuple[ExpertKernel, torch.Tensor]] = max(
        work, key=lambda mine: sum(len(rows) for _, rows in mine)
    )
    return lambda: [kernel(rows) for kernel, rows in busier], sum(len(r) for _, r in busier)
