"""Counts what rows, loads and failures each version of a gate had, of live sessions.

Only sums, as all counters are. Rows whose gate or experts were forced compare versions, and count
for none of them. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from moe_core.drift import GROUPS, group_of
from moe_core.rows import GateVariant
from moe_router.latency import count_latency, no_latencies
from moe_router.overflow import capacity
from moe_router.request import Request, Rows
from moe_router.sequences import Sequence as Rowed
from moe_router.settle import Outcome

Array = npt.NDArray[Any]


@dataclass(slots=True)
class Spread:
    """Rows that say what they are about; `groups` are pairs by group of sessions and expert."""

    groups: Array  # (GROUPS, E) int64
    rows: int = 0

    @classmethod
    def over(cls, experts: int) -> Spread:
        return cls(np.zeros((GROUPS, experts), np.int64))


@dataclass(slots=True)
class LayerTally:
    """Rows of one layer; `pairs` are by expert, in the order of the version's list.

    `groups` are the same pairs by group of sessions, `contexts` those of the rows that say what
    they are about, by that name: the version's policy bounds how many there are.
    """

    pairs: Array  # (E,) int64
    rows: int = 0
    overflow_pairs: int = 0
    scored_rows: int = 0
    entropy_sum: float = 0.0
    groups: Array = field(default_factory=lambda: np.zeros((GROUPS, 0), np.int64))
    contexts: dict[str, Spread] = field(default_factory=dict)

    @classmethod
    def over(cls, experts: int) -> LayerTally:
        zero = np.zeros((GROUPS, experts), np.int64)
        return cls(np.zeros(experts, np.int64), groups=zero)


@dataclass(slots=True)
class GateTally:
    """Counters of one version of one gate."""

    requests: int = 0
    failed_requests: int = 0
    mass: float = 0.0
    lost_mass: float = 0.0
    latency_counts: list[int] = field(default_factory=no_latencies)
    latency_s: float = 0.0
    session_pairs: int = 0
    overflow_pairs: int = 0
    overflow_sessions: int = 0
    layers: dict[int, LayerTally] = field(default_factory=dict)

    def request(self, latency_s: float) -> None:
        self.requests += 1
        self.latency_s += latency_s
        count_latency(self.latency_counts, latency_s)


class GateTallies:
    """The counters of all versions of all gates."""

    def __init__(self) -> None:
        self._tallies: dict[tuple[str, str], GateTally] = {}

    def of(self, name: str, sha256: str) -> GateTally:
        """Return the counters of a version of a gate."""
        key = name, sha256
        tally = self._tallies.get(key)
        if tally is None:
            tally = self._tallies[key] = GateTally()
        return tally

    def seen(self, name: str, sha256: str) -> GateTally:
        """Return the counters of a version to read; those of one never chosen by are zero."""
        return self._tallies.get((name, sha256)) or GateTally()

    def failed(self, rows: Rows, latency_s: float) -> None:
        """Count a request that nobody could serve."""
        for variant, _ in _live(rows):
            tally = self.of(rows.gate.name, variant.sha256)
            tally.request(latency_s)
            tally.failed_requests += 1

    def answered(self, request: Request, outcomes: Sequence[Outcome], latency_s: float) -> None:
        """Count a request; `outcomes` are those of its sequences."""
        rows = request.rows
        for variant, numbers in _live(rows):
            tally = self.of(rows.gate.name, variant.sha256)
            tally.request(latency_s)
            for number in numbers:
                tally.mass += outcomes[number].mass
                tally.lost_mass += outcomes[number].lost
            layer = tally.layers.get(rows.layer)
            if layer is None or len(layer.pairs) != len(variant.experts):  # a list put right
                layer = tally.layers[rows.layer] = LayerTally.over(len(variant.experts))
            _count(layer, request, variant, [rows.sequences[number] for number in numbers])


def _live(rows: Rows) -> Iterator[tuple[GateVariant, Sequence[int]]]:
    """Give each variant that live sequences use, and which sequences these are."""
    sequences = rows.sequences
    if len(rows.variants) == 1 and not any(s.evaluates for s in sequences):
        yield rows.variants[0], range(len(sequences))
        return
    for variant in rows.variants:
        numbers = [
            number
            for number, sequence in enumerate(sequences)
            if sequence.gate.sha256 == variant.sha256 and not sequence.evaluates
        ]
        if numbers:
            yield variant, numbers


def _count(
    layer: LayerTally, request: Request, variant: GateVariant, sequences: Sequence[Rowed]
) -> None:
    """Count what one variant chose in one request, with one pass over its pairs."""
    experts, sizes = len(variant.experts), [s.last - s.first for s in sequences]
    chosen, entropy = request.chosen, request.entropy
    if sum(sizes) != len(chosen):
        own = np.concatenate([np.arange(s.first, s.last) for s in sequences])
        chosen, entropy = chosen[own], None if entropy is None else entropy[own]
    room = [capacity(size, variant.top_k, experts) for size in sizes]
    crowded = any(takes < size for takes, size in zip(room, sizes, strict=True))
    groups = [group_of(sequence.session) for sequence in sequences]
    if len(sizes) == 1:
        batches = _bins(chosen, np.zeros(1, np.int64), sizes, 1, experts)
        layer.groups[groups[0]] += batches[0]
    elif crowded:
        batches = _bins(chosen, np.arange(len(sizes)), sizes, len(sizes), experts)
        np.add.at(layer.groups, groups, batches)
    else:
        batches = _bins(chosen, np.array(groups), sizes, GROUPS, experts)
        layer.groups += batches
    layer.rows += len(chosen)
    layer.pairs += batches[0] if len(batches) == 1 else batches.sum(axis=0)
    if crowded:
        layer.overflow_pairs += int(np.maximum(batches - np.array(room)[:, None], 0).sum())
    _count_contexts(layer, chosen, experts, sequences, groups)
    if entropy is not None:
        known = np.isfinite(entropy)
        layer.scored_rows += int(known.sum())
        layer.entropy_sum += float(entropy[known].sum())


def _bins(chosen: Array, keys: Array, sizes: Sequence[int], count: int, experts: int) -> Array:
    """Return the pairs (count, E) of sequences of these sizes, each added to the row of its key."""
    places = chosen + 1  # EMPTY comes first
    if count > 1:
        places = places + np.repeat(keys * (experts + 1), sizes)[:, None]
    bins = np.bincount(places.ravel(), minlength=count * (experts + 1))
    return bins.reshape(count, experts + 1)[:, 1:]


def _count_contexts(
    layer: LayerTally,
    chosen: Array,
    experts: int,
    sequences: Sequence[Rowed],
    groups: Sequence[int],
) -> None:
    """Count the rows of sequences that say what they are about; `chosen` are those of all."""
    if not any(sequence.context for sequence in sequences):
        return
    first = 0
    for sequence, group in zip(sequences, groups, strict=True):
        own = chosen[first : (first := first + sequence.last - sequence.first)]
        if sequence.context:
            spread = layer.contexts.setdefault(sequence.context, Spread.over(experts))
            spread.rows += len(own)
            spread.groups[group] += np.bincount(own.ravel() + 1, minlength=experts + 1)[1:]
