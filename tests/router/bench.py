"""An engine over workers in memory, and the mixtures that its tests are about.

Three experts a, b and c, of which a may have a candidate; each version multiplies by its factor.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from moe_artifacts.artifact import GateLayer
from moe_core.rollout import Outcome, Rollout, Version, WeightSince
from moe_core.rows import ExpertRow, GateRow, GateVariant
from moe_core.table import Failover, Rung, Table
from moe_router.engine import Answer, Engine, Limits
from moe_router.refusal import Code, Refused
from moe_router.said import Said
from moe_router.tables import Tables
from tests.fakes.links import FakeLinks, FakeWorker
from tests.support.dispatching import dispatch_request
from tests.support.tables import expert, gate, table, to_object, version

A, B, C, D = (version(name) for name in ("a-v1", "b-v1", "c-v1", "dense-v1"))
A2 = version("a-v2")
FACTORS = {A.sha256: 1.0, B.sha256: 2.0, C.sha256: 4.0, D.sha256: 8.0, A2.sha256: 16.0}
IDS = ("a", "b", "c")


class Bench:
    """An engine over workers in memory, in float32 so that sums are easy to foresee."""

    def __init__(
        self,
        content: Table,
        workers: Mapping[str, FakeWorker],
        *,
        limits: Limits | None = None,
        gates: Mapping[str, Any] | None = None,
    ) -> None:
        self.now_s = 0.0
        self.table = content
        self.tables = Tables("tiny", self.clock)
        self.links = FakeLinks(workers)
        self.gates = Gates(gates or {})
        self.engine = Engine(self.tables, self.links, self.gates, self.clock, limits or Limits())
        self.offer(content)

    def clock(self) -> float:
        return self.now_s

    def offer(self, content: Table) -> None:
        self.table = content
        self.tables.offer(Said.of(to_object(content)))

    async def dispatch(self, experts: list[list[int]], **options: Any) -> Answer:
        options.setdefault("hidden", np.ones((len(experts), self.table.hidden_size)))
        return await self.engine.dispatch(dispatch_request(self.table, experts, **options))

    async def refused(self, experts: list[list[int]], **options: Any) -> Refused:
        with pytest.raises(Refused) as caught:
            await self.dispatch(experts, **options)
        return caught.value

    async def settle(self) -> None:
        """Let everything that is on its way arrive."""
        for _ in range(5):
            await asyncio.sleep(0)

    def tally(self, wanted: Version) -> Any:
        return next(tally for _, tally in self.engine.counters.versions([wanted.sha256]))


class Gates:
    """Gate weights by digest, or all tensors of a layer."""

    def __init__(self, weights: Mapping[str, Any]) -> None:
        self._weights = weights

    def layer(self, row: GateRow, variant: GateVariant, layer: int) -> Any:
        if variant.sha256 not in self._weights:
            raise Refused(Code.UNAVAILABLE, "not here yet")
        held = self._weights[variant.sha256]
        return held if isinstance(held, GateLayer) else GateLayer(held)


def mixture(*rows: ExpertRow, ladder: tuple[Rung, ...] | None = None, percent: int = 100) -> Table:
    known = {row.expert_id for row in rows}
    plain = dict(zip(IDS, (A, B, C), strict=True))
    others = [expert(name, plain[name]) for name in IDS if name not in known]
    failover = Failover(ladder if ladder is not None else tuple(Rung), percent)
    return table([*rows, *others], [gate(IDS)], hidden_size=4, dtype="Float32", failover=failover)


def worker(*versions: Version, **options: Any) -> FakeWorker:
    return FakeWorker({v.sha256: FACTORS[v.sha256] for v in versions}, **options)


def values(answer: Answer) -> list[float]:
    """Each token's output; all its numbers are equal because the input is all ones."""
    assert (answer.hidden == answer.hidden[:, :1]).all()
    return [float(row[0]) for row in answer.hidden]


def rungs(answer: Answer) -> list[tuple[Rung, str, int]]:
    return [rung for fate in answer.fates for rung in fate.outcome.rungs]


def canary(weight: int = 100, stable: Version | None = A) -> ExpertRow:
    rollout = Rollout(
        revision=2,
        target=A2,
        step=1,
        step_began="2026-01-01T00:00:00Z",
        outcome=Outcome.PROGRESSING,
        reason="",
        salt="salt",
        weights=(WeightSince(1, weight),),
    )
    return replace(expert("a", stable), candidate=A2, rollout=rollout)


def taken_back(epoch: int) -> Table:
    rollout = canary().rollout
    assert rollout is not None
    weights = (*rollout.weights, WeightSince(epoch, 0))
    ended = replace(rollout, outcome=Outcome.ROLLED_BACK, weights=weights)
    row = replace(expert("a", A), revoked=(A2.sha256,), rollout=ended)
    return replace(mixture(row), epoch=epoch)
