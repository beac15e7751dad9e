"""Reads what a router counts of each version of each gate into metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from moe_core.metrics import Family, Histogram, Labels, Point
from moe_core.rows import GateRow
from moe_core.version_names import on_trial, version_names
from moe_router import metrics as m
from moe_router.engine import Engine
from moe_router.gate_shadow import Scored
from moe_router.gate_tally import GateTally, LayerTally
from moe_router.latency import LATENCY_BOUNDS_S
from moe_router.loads import Loads, Place, Spread
from moe_router.view import View

Array = npt.NDArray[Any]
Block = tuple[Family, Iterable[Point]]
_FIRST: Final = 1 << 60  # more than pairs ever are


@dataclass(frozen=True, slots=True)
class _Told:
    """A version of a gate that is told of, and what its layers counted until now."""

    labels: Labels
    tally: GateTally
    tried: bool
    experts: tuple[str, ...]
    layers: dict[Place, LayerTally]


class GateMetrics:
    """The families of gates. Remembers the loads of the last period, for which it is asked."""

    def __init__(self, mixture: str, engine: Engine, now_s: float, *, detail: bool) -> None:
        self._mixture, self._engine, self._detail = mixture, engine, detail
        self._loads = Loads(now_s)

    def collect(self, view: View, now_s: float) -> Iterator[Block]:
        told = [one for gate in view.table.gates for one in self._told(gate)]
        totals = {place: layer.pairs for one in told for place, layer in one.layers.items()}
        self._loads.look(totals, now_s, m.MOVING_CELLS)
        yield from _versions(told)
        yield from self._layers(told)
        yield from self._shadows(view)
        yield m.EXPERT_PAIRS, _experts(told)
        yield m.CELL_PAIRS, self._cells(told)

    def _told(self, gate: GateRow) -> Iterator[_Told]:
        lists = {variant.sha256: variant.experts for variant in gate.named}
        for sha256, name in version_names(gate).items():
            tally = self._engine.counters.gates.seen(gate.name, sha256)
            layers = {
                Place(gate.name, sha256, number): layer for number, layer in tally.layers.items()
            }
            labels = self._mixture, gate.name, name
            yield _Told(labels, tally, on_trial(gate), lists.get(sha256, ()), layers)

    def _layers(self, told: list[_Told]) -> Iterator[Block]:
        places = [
            ((*one.labels, str(place.layer)), place, layer)
            for one in told
            for place, layer in one.layers.items()
        ]

        def each(read: Callable[[LayerTally], int | float]) -> Iterator[Point]:
            return ((labels, read(layer)) for labels, _, layer in places)

        yield m.LAYER_ROWS, each(lambda layer: layer.rows)
        yield m.LAYER_PAIRS, each(lambda layer: int(layer.pairs.sum()))
        yield m.LAYER_OVERFLOW, each(lambda layer: layer.overflow_pairs)
        yield m.LAYER_SCORED, each(lambda layer: layer.scored_rows)
        yield m.LAYER_ENTROPY, each(lambda layer: layer.entropy_sum)
        spreads = self._loads.spreads

        def of_period(read: Callable[[Spread], float]) -> Iterator[Point]:
            return (
                (labels, read(spreads[place])) for labels, place, _ in places if place in spreads
            )

        yield m.IMBALANCE, of_period(lambda spread: spread.imbalance)
        yield m.LOAD_ENTROPY, of_period(lambda spread: spread.entropy_bits)

    def _shadows(self, view: View) -> Iterator[Block]:
        names = {gate.name: version_names(gate) for gate in view.table.gates}
        stable = {gate.name: gate.stable.sha256 for gate in view.table.gates}
        seen = [
            ((self._mixture, of.gate, names[of.gate][of.sha256], str(of.layer)), scored)
            for of, scored in self._engine.scorings.sums()
            if of.sha256 in names.get(of.gate, {}) and of.base_sha256 == stable[of.gate]
        ]

        def each(read: Callable[[Scored], int | float]) -> Iterator[Point]:
            return ((labels, read(scored)) for labels, scored in seen)

        yield m.SHADOWED_ROWS, each(lambda scored: scored.rows)
        yield m.SHADOW_OVERLAP, each(lambda scored: scored.overlap)
        yield m.SHADOW_DIVERGENCE, each(lambda scored: scored.divergence)

    def _cells(self, told: list[_Told]) -> Iterator[Point]:
        by_place = {place: (one, layer) for one in told for place, layer in one.layers.items()}
        count = sum(len(layer.pairs) for _, layer in by_place.values())
        if self._detail or count <= m.MAX_CELLS:
            for one, place, layer in ((o, p, lay) for o in told for p, lay in o.layers.items()):
                for expert_id, pairs in zip(one.experts, layer.pairs.tolist(), strict=False):
                    yield (*one.labels, str(place.layer), expert_id), pairs
            return
        for place, number in self._loads.moving:
            if place in by_place:
                one, layer = by_place[place]
                if number < len(one.experts):
                    labels = *one.labels, str(place.layer), one.experts[number]
                    yield labels, int(layer.pairs[number])


def _versions(told: list[_Told]) -> Iterator[Block]:
    def each(read: Callable[[GateTally], int | float | Histogram]) -> Iterator[Point]:
        return ((one.labels, read(one.tally)) for one in told)

    yield m.GATE_REQUESTS, each(lambda tally: tally.requests)
    yield m.GATE_FAILURES, each(lambda tally: tally.failed_requests)
    yield m.GATE_MASS, each(lambda tally: tally.mass)
    yield m.GATE_LOST, each(lambda tally: tally.lost_mass)
    yield (
        m.GATE_LATENCY,
        (
            (one.labels, Histogram.of(LATENCY_BOUNDS_S, tally.latency_counts, tally.latency_s))
            for one in told
            if one.tried and (tally := one.tally)
        ),
    )


def _experts(told: list[_Told]) -> Iterator[Point]:
    """Of too many experts those of gates on trial come first, then the busiest."""
    sums: list[tuple[_Told, Array]] = []
    for one in told:
        fitting = [x.pairs for x in one.layers.values() if len(x.pairs) == len(one.experts)]
        if fitting:
            sums.append((one, np.sum(fitting, axis=0)))
    if sum(len(pairs) for _, pairs in sums) > m.MAX_EXPERTS:
        ranks = np.concatenate([pairs + (one.tried * _FIRST) for one, pairs in sums])
        least = np.partition(ranks, -m.MAX_EXPERTS)[-m.MAX_EXPERTS]
    else:
        least = np.int64(0)
    left = m.MAX_EXPERTS
    for one, pairs in sums:
        for number in np.flatnonzero(pairs + (one.tried * _FIRST) >= least).tolist()[:left]:
            left -= 1
            yield (*one.labels, one.experts[number]), int(pairs[number])
