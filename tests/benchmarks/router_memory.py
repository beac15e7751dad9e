"""`python -m tests.benchmarks.router_memory`: what a router holds in memory, by experts and layers.

A real router with links to 64 workers (sockets in this process, which give rows back), each expert
with two replicas, after 64 rows for random experts of every layer.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from moe_core.rows import ExpertRow, GateRow
from moe_core.table import Table
from moeops.v1.link_pb2 import Inventory, Servable
from tests.fakes.worker import ScriptedWorker
from tests.router.process import RouterProcess, spawn
from tests.support.dispatching import Caller, dispatch_request
from tests.support.tables import TableFile, expert, gate, table, version

_WORKERS: Final = 64
_ROWS: Final = 64
_TOP_K: Final = 8
_BEAT_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Size:
    """A mixture's; `apart` where each layer's experts are objects of their own."""

    experts: int
    layers: int
    apart: bool = False

    def table(self) -> Table:
        """Return its table."""
        everywhere = range(self.layers)
        rows, gates = [], []
        for layers in [[layer] for layer in everywhere] if self.apart else [list(everywhere)]:
            own = [self._expert(number, layers) for number in range(self.experts)]
            rows += own
            names = [row.expert_id for row in own]
            gates.append(self._gate(names, layers))
        return table(rows, gates, hidden_size=32, layers=self.layers)

    def _expert(self, number: int, layers: list[int]) -> ExpertRow:
        name = f"l{layers[0]}-e{number}" if self.apart else f"e{number}"
        return expert(name, version(f"{name}-v1"), layers=layers)

    def _gate(self, names: list[str], layers: list[int]) -> GateRow:
        name = f"gate-{layers[0]}"
        plain = gate(names, top_k=_TOP_K, layers=layers, stable=version(f"{name}-v1"))
        return GateRow(name, plain.layers, plain.stable)


@dataclass
class EchoWorker(ScriptedWorker):
    """Holds some experts, and answers each row with itself."""

    held: list[ExpertRow] = field(default_factory=list)

    def inventory(self, *, draining: bool = False) -> Inventory:
        mine = super().inventory(draining=draining)
        for row in self.held:
            assert row.stable is not None
            digest, layers = row.stable.sha256, row.layers
            mine.servable.append(Servable(expert_id=row.expert_id, sha256=digest, layers=layers))
        return mine

    async def work(self) -> None:
        """Answer until cancelled."""
        while True:
            compute, body = await self.computes.get()
            self.answer(compute, body)

    async def live(self) -> None:
        """Beat until cancelled."""
        while True:
            await asyncio.sleep(_BEAT_S)
            if self.connections:
                self.beat()


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0]).parse_args(arguments)
    print(f"{'experts':>8}{'layers':>8}{'objects':>9}{'MiB':>7}{'peak':>7}   (goal: 300)")
    for size in (Size(8, 1), Size(256, 58), Size(256, 58, apart=True)):
        objects = size.experts * (size.layers if size.apart else 1)
        now, peak = asyncio.run(_measure(size))
        print(f"{size.experts:>8}{size.layers:>8}{objects:>9,}{now:>7.0f}{peak:>7.0f}", flush=True)


async def _measure(size: Size) -> tuple[float, float]:
    content = size.table()
    async with AsyncExitStack() as stack:
        workers = []
        for number in range(_WORKERS):
            before = (number - 1) % _WORKERS
            held = [*content.experts[number::_WORKERS], *content.experts[before::_WORKERS]]
            worker = EchoWorker((), held=held)
            server = await asyncio.start_server(worker.accept, "127.0.0.1", 0)
            stack.callback(server.close)
            worker.address = "{}:{}".format(*server.sockets[0].getsockname())
            for task in (asyncio.create_task(worker.work()), asyncio.create_task(worker.live())):
                stack.callback(task.cancel)
            workers.append(worker)
        links = ",".join(worker.address for worker in workers)
        return await asyncio.to_thread(_run, content, links)


def _run(content: Table, links: str) -> tuple[float, float]:
    """Ask for rows of each layer; return the router's resident memory in MiB, and its peak."""
    with tempfile.TemporaryDirectory() as name:
        file = TableFile(Path(name) / "table.yaml", content)
        with spawn(mixture=content.mixture, table_file=str(file.path), workers=links) as router:
            digests = [row.stable.sha256 for row in content.experts if row.stable is not None]
            router.wait_until_routable(digests, workers=2)
            random = np.random.default_rng(0)
            with Caller(router.address) as caller:
                for own in content.gates:
                    for layer in own.layers:
                        known = len(own.stable.experts)
                        chosen = [random.permutation(known)[:_TOP_K] for _ in range(_ROWS)]
                        asked = dispatch_request(content, np.array(chosen).tolist(), layer=layer)
                        (answer,) = caller.dispatch(asked)
                        assert not answer.HasField("failure"), answer.failure.message
            return _memory(router)


def _memory(router: RouterProcess) -> tuple[float, float]:
    status = Path(f"/proc/{router.process.pid}/status").read_text()
    found = dict(re.findall(r"^(VmRSS|VmHWM):\s+(\d+) kB$", status, re.MULTILINE))
    return int(found["VmRSS"]) / 1024, int(found["VmHWM"]) / 1024


if __name__ == "__main__":
    main()
