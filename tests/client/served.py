"""A checkpoint split, and served by real workers and real routers on this host.

    with serve(checkpoint, tmp_path, dtype="Float32") as served:
        attach(model, served.addresses)

Every worker holds every expert, so that each has as many replicas as there are workers; or they
are spread over the workers, with one replica each.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moe_artifacts.artifact import encode, read_expert
from moe_artifacts.index import Index
from moe_artifacts.plan import Request, make_plan
from moe_artifacts.split import split
from moe_core.policy import Policy
from moe_core.rollout import Version
from moe_core.rows import ExpertRow, GateRow, GateVariant
from moe_core.table import Failover, Table
from moe_router.embedded import EmbeddedRouter
from tests.router import process as router_process
from tests.router.process import RouterProcess
from tests.support.program import flags
from tests.support.tables import UID, TableFile
from tests.worker import process as worker_process
from tests.worker.process import WorkerProcess

MIXTURE = "tiny"


@dataclass
class Served:
    """What runs, and the table that it obeys."""

    index: Index
    table: TableFile
    workers: list[WorkerProcess] = field(default_factory=list)
    routers: list[RouterProcess] = field(default_factory=list)
    seconds: dict[str, Version] = field(default_factory=dict)

    @property
    def addresses(self) -> list[str]:
        return [router.address for router in self.routers]

    @property
    def mixed_batches(self) -> int:
        """Batches in which workers computed rows of several requests together."""
        return sum(worker.describe().counters.mixed_batches for worker in self.workers)


@contextmanager
def serve(
    checkpoint: Path,
    directory: Path,
    *,
    dtype: str,
    workers: int = 2,
    routers: int = 1,
    spread: bool = False,
    tried: Mapping[str, float] | None = None,
    worker_module: str = "moe_worker",
    numerics: str = "Exact",
) -> Iterator[Served]:
    """Split, start everything, wait until all is routable.

    `tried` has experts whose down projections, times a factor, are a second version of them that
    workers hold too; `Served.seconds` names those.
    """
    index = split_into(checkpoint, directory / "artifacts", dtype)
    table = TableFile(directory / "table.yaml", table_of(index, policy_of(checkpoint)))
    served = Served(index, table)
    for expert_id, factor in (tried or {}).items():
        served.seconds[expert_id] = scale(index, directory / "artifacts", expert_id, factor)
    held = assignment(index) + [
        assigned(expert_id, version, index.layers) for expert_id, version in served.seconds.items()
    ]
    with ExitStack() as stack:
        starting = [
            worker_process.spawn(
                part, index.hidden_size, dtype=dtype, module=worker_module, numerics=numerics
            )
            for part in _share(held, workers, spread)
        ]
        with ThreadPoolExecutor(workers) as pool:
            served.workers.extend(pool.map(stack.enter_context, starting))
        links = ",".join(worker.link for worker in served.workers)
        for _ in range(routers):
            listening = router_process.spawn(
                mixture=MIXTURE, table_file=str(table.path), workers=links
            )
            served.routers.append(stack.enter_context(listening))
        digests = [part["sha256"] for part in held]
        for router in served.routers:
            router.wait_until_routable(digests, workers=1 if spread else workers)
        yield served


@contextmanager
def embedded(served: Served, **options: str) -> Iterator[EmbeddedRouter]:
    """Run one more router, in this process; `options` are its flags."""
    given = {
        "mixture": MIXTURE,
        "table_file": str(served.table.path),
        "workers": ",".join(worker.link for worker in served.workers),
        "listen": "127.0.0.1:0",
        "metrics": "none",
        "drain_seconds": "0",
        **options,
    }
    with EmbeddedRouter(flags(given), {}) as router:
        yield router


def _share(experts: list[dict[str, Any]], workers: int, spread: bool) -> list[list[dict[str, Any]]]:
    return [experts[n::workers] if spread else experts for n in range(workers)]


def split_into(checkpoint: Path, out: Path, dtype: str) -> Index:
    prefix = out.resolve().as_uri()
    request = Request(checkpoint, out, MIXTURE, uri_prefix=prefix, dtype=dtype)
    return split(make_plan(request), lambda count: None).index


def scale(index: Index, artifacts: Path, expert_id: str, factor: float) -> Version:
    """Write a version of an expert whose down projections are larger by a power of two."""
    entry = index.entry(expert_id)
    assert entry is not None
    assert entry.file is not None
    expert = read_expert(artifacts / entry.file)

    def look_up(name: str) -> Any:
        _, layer, projection = name.split(".")
        tensor = getattr(expert.layers[int(layer)], projection)
        return tensor * tensor.dtype.type(factor) if projection == "down_proj" else tensor

    content = b"".join(bytes(piece) for piece in encode(expert.metadata, look_up))
    path = artifacts / f"{expert_id}-tried.safetensors"
    path.write_bytes(content)
    return Version("tried", hashlib.sha256(content).hexdigest(), path.resolve().as_uri())


def policy_of(checkpoint: Path) -> Policy:
    return make_plan(Request(checkpoint, checkpoint, MIXTURE)).checkpoint.architecture.policy


def assigned(expert_id: str, version: Version, layers: int) -> dict[str, Any]:
    return {
        "expertId": expert_id,
        "version": version.version,
        "uri": version.uri,
        "sha256": version.sha256,
        "layers": list(range(layers)),
    }


def assignment(index: Index) -> list[dict[str, Any]]:
    return [
        {
            "expertId": entry.name,
            "version": entry.version,
            "uri": entry.uri,
            "sha256": entry.sha256,
            "layers": list(entry.layers),
        }
        for entry in index.entries
        if entry.role is not None
    ]


def table_of(index: Index, policy: Policy) -> Table:
    """Return a table in which every part is stable, as an operator would write it first."""
    experts = [entry for entry in index.entries if entry.role is not None]
    (gate,) = [entry for entry in index.entries if entry.role is None]
    rows = tuple(
        ExpertRow(
            entry.name,
            entry.name,
            entry.role,
            entry.layers,
            stable=Version(entry.version, entry.sha256, entry.uri),
        )
        for entry in experts
        if entry.role is not None
    )
    names = tuple(entry.name for entry in experts)
    stable = GateVariant(gate.version, gate.sha256, gate.uri, names, policy)
    return Table(
        mixture=index.mixture,
        uid=UID,
        epoch=1,
        hidden_size=index.hidden_size,
        layers=index.layers,
        dtype=index.dtype,
        trunk_sha256=index.trunk_sha256,
        failover=Failover(),
        gates=(GateRow("gate", gate.layers, stable),),
        experts=rows,
    )
