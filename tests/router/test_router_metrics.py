"""What a router's metrics say, how many they are, and what stands out of many."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_core.metrics import Family, Kind, Point
from moe_core.rollout import Outcome, Rollout, Version, WeightSince
from moe_core.rows import ExpertRow, GateRow, OnCold
from moe_core.table import Table
from moe_router import metrics as m
from moe_router.application import Batch
from moe_router.collect import RouterMetrics
from moe_router.collect_gates import GateMetrics
from moe_router.collect_versions import version_metrics
from moe_router.gate_shadow import Sample, Scored
from moe_router.gate_tally import LayerTally
from moe_router.gates import GateArtifacts
from moe_router.ladder import Ask, Cause, Lost
from moe_router.links import Links
from moe_router.loads import PERIOD_S, Loads, Place, Spread
from moe_router.message import Part
from moe_router.said import Said
from moe_router.tables import Tables
from moe_router.view import View
from moeops.v1.link_pb2 import GroupResult
from tests.fakes.links import FakeWorker
from tests.reference.metrics import PAGE
from tests.router.bench import FACTORS, IDS, A, B, Bench, C
from tests.support.scrape import read
from tests.support.tables import expert, gate, table, to_object, version

LAYERS, EXPERTS = 58, 256
DIGITS = tuple(f"e{number}" for number in range(EXPERTS))


@dataclass
class Asked:
    """The families of versions and gates of one engine, at one moment."""

    bench: Bench
    gates: GateMetrics

    @classmethod
    def of(cls, content: Table, *, detail: bool = False) -> Asked:
        worker = FakeWorker(dict(FACTORS))
        bench = Bench(content, {"w": worker})
        return cls(bench, GateMetrics("tiny", bench.engine, 0.0, detail=detail))

    def collect(self) -> Iterator[tuple[Family, Iterable[Point]]]:
        view = View.of(self.bench.table)
        yield from version_metrics("tiny", view, self.bench.engine.counters)
        yield from self.gates.collect(view, self.bench.now_s)

    def count(self) -> dict[str, int]:
        return {family.name: len(list(points)) for family, points in self.collect()}


def small() -> Table:
    rows = [expert(name, v) for name, v in zip(IDS, (A, B, C), strict=True)]
    return table(rows, [gate(IDS)], hidden_size=4, dtype="Float32")


async def test_what_is_told_is_what_was_counted() -> None:
    asked = Asked.of(small())
    await asked.bench.dispatch([[0, 1], [0, 2], [0, 1]])
    asked.bench.now_s = PERIOD_S

    seen = read(asked)

    pairs = {("a",): 3, ("b",): 2, ("c",): 1}
    assert seen.of("moeops_router_version_rows_total", mixture="tiny") == {
        (expert_id, f"{expert_id}-v1"): rows for (expert_id,), rows in pairs.items()
    }
    own = {"mixture": "tiny", "gate": "gate", "version": "gate-v1"}
    assert seen.of("moeops_gate_expert_pairs_total", **own) == pairs
    assert seen.of("moeops_gate_cell_pairs_total", layer="0", **own) == pairs
    assert seen.value("moeops_gate_rows_total", layer="0", **own) == 3
    assert seen.value("moeops_gate_pairs_total", layer="0", **own) == 6
    assert seen.value("moeops_gate_imbalance_ratio", layer="0", **own) == pytest.approx(1.5)
    entropy = -sum(p * np.log2(p) for p in (3 / 6, 2 / 6, 1 / 6))
    assert seen.value("moeops_gate_load_entropy", layer="0", **own) == pytest.approx(entropy)


async def test_stages_add_up_and_failures_are_by_code() -> None:
    asked = Asked.of(small())
    await asked.bench.dispatch([[0, 1]])
    await asked.bench.refused([[0, 1]], layer=0, gate_sha256="0" * 64)

    counters = asked.bench.engine.counters

    assert (counters.requests, counters.failed_requests) == (2, 1)
    assert counters.failures == {"FAILED_PRECONDITION": 1}
    assert sum(counters.answers.counts) == 1
    assert [sum(stage.counts) for stage in counters.stages.values()] == [1, 1, 1]


def rolled(row: ExpertRow, candidate: Version, outcome: Outcome) -> ExpertRow:
    weights = (WeightSince(1, 5),)
    rollout = Rollout(2, candidate, 1, "2026-01-01T00:00:00Z", outcome, "", "salt", weights)
    if outcome is Outcome.PROGRESSING:
        return replace(row, candidate=candidate, rollout=rollout)
    return replace(row, revoked=(candidate.sha256,), rollout=rollout)


def part(expert_id: str, of: Version) -> Part:
    ask = Ask(None, expert_id, of.sha256, ("w",))
    return Part(Lost(expert_id, of), ask, np.arange(4))


def test_a_candidate_that_was_taken_back_is_still_told_of() -> None:
    """Its errors led to its end within seconds, between two scrapes."""
    candidate = version("a-v2")
    content = small()
    row = rolled(content.experts[0], candidate, Outcome.ROLLED_BACK)
    asked = Asked.of(content.with_expert(row))
    asked.bench.engine.counters.failed(part("a", candidate), Cause.NON_FINITE, 0.01)

    seen = read(asked)

    own = {"mixture": "tiny", "expert": "a", "version": "a-v2"}
    assert seen.value("moeops_router_version_errors_total", cause="NonFinite", **own) == 1
    assert "moeops_router_version_latency_seconds_count" not in seen.names


def test_what_is_on_trial_is_told_in_full_from_the_first() -> None:
    candidate, content = version("a-v2"), small()
    row = rolled(content.experts[0], candidate, Outcome.PROGRESSING)
    asked = Asked.of(content.with_expert(row))
    counters = asked.bench.engine.counters
    counters.answered(part("a", candidate), GroupResult(norm_sum=1.0), 0.003, 0.0, used=True)

    seen = read(asked)

    own = {"mixture": "tiny", "expert": "a", "version": "a-v2"}
    errors = seen.of("moeops_router_version_errors_total", **own)
    assert errors == {(cause.value,): 0 for cause in Cause}
    assert seen.value("moeops_router_version_latency_seconds_count", **own) == 1
    assert seen.value("moeops_router_version_latency_seconds_sum", **own) == pytest.approx(0.003)
    assert seen.value("moeops_router_version_latency_seconds_bucket", le="0.004", **own) == 1
    assert seen.value("moeops_router_version_latency_seconds_bucket", le="0.002", **own) == 0
    assert seen.value("moeops_router_version_rows_total", **own) == 4


def large(*, apart: bool) -> Table:
    """DeepSeek-V3's 58 layers of 256 experts: each over all layers, or one object for each."""
    every = tuple(range(LAYERS))
    if not apart:
        rows = [expert(name, version(f"{name}-v1"), layers=every) for name in DIGITS]
        return table(rows, [gate(DIGITS, layers=every, top_k=8)], layers=LAYERS)
    rows, gates = [], list[GateRow]()
    for layer in every:
        ids = tuple(f"l{layer}-{name}" for name in DIGITS)
        rows += [expert(name, version(f"{name}-v1"), layers=[layer]) for name in ids]
        own = gate(ids, layers=[layer], top_k=8, stable=version(f"gate{layer}-v1"))
        gates.append(replace(own, name=f"gate{layer}"))
    return table(rows, gates, layers=LAYERS)


def fed(asked: Asked, seed: int = 0) -> Asked:
    """Count as if rows had come to every expert of every layer."""
    random = np.random.default_rng(seed)
    counters = asked.bench.engine.counters
    for row in asked.bench.table.gates:
        tally = counters.gates.of(row.name, row.stable.sha256)
        for layer in row.layers:
            pairs = random.integers(1, 1000, EXPERTS)
            old = tally.layers.get(layer)
            pairs = pairs if old is None else pairs + old.pairs
            tally.layers[layer] = LayerTally(pairs, rows=int(pairs.sum() // 8))
    for expert_row in asked.bench.table.experts:
        assert expert_row.stable is not None
        counters.failed(part(expert_row.expert_id, expert_row.stable), Cause.BROKEN, 0.01)
    return asked


def series(asked: Asked) -> int:
    return len(read(asked).samples)


@pytest.mark.parametrize(
    ("apart", "detail", "told"),
    [
        # 4·256 of versions, 256 causes, 4 of the gate, 7 of 58 layers, 256 experts, 64 cells.
        pytest.param(False, False, 2_010, id="58 layers of 256 experts"),
        # … and each layer of each expert.
        pytest.param(False, True, 1_946 + LAYERS * EXPERTS, id="in full"),
        # 4·512 of versions, 512 causes, 4 of 58 gates, 7 of 58 layers, 512 experts, 64 cells.
        pytest.param(True, False, 3_774, id="14,848 objects"),
        pytest.param(True, True, 3_710 + LAYERS * EXPERTS, id="14,848 objects in full"),
    ],
)
def test_the_series_of_a_large_mixture_are_as_many_as_stated(
    apart: bool, detail: bool, told: int
) -> None:
    asked = fed(Asked.of(large(apart=apart), detail=detail))

    assert series(asked) == told
    assert f"{told:,}" in PAGE.read_text()


async def test_the_series_of_a_router_itself_are_as_many_as_stated() -> None:
    bench = Bench(small(), {"w": FakeWorker(dict(FACTORS))})
    links, gates = Links(bench.clock), GateArtifacts(None)
    tables = Tables("tiny", bench.clock)
    metrics = RouterMetrics(
        "tiny", bench.engine, tables, links, gates, lambda: 0, bench.clock, detail=False
    )
    without_table = len(read(metrics).samples)

    assert without_table == 111
    tables.offer(Said.of(to_object(small())))
    versions = sum(len(list(points)) for _, points in Asked.of(small()).collect())
    assert len(read(metrics).samples) - versions == 115
    assert "has 115 of its own" in PAGE.read_text()


async def test_an_expert_that_is_waited_for_adds_as_many_as_stated() -> None:
    bench = Bench(small(), {"w": FakeWorker(dict(FACTORS))})
    metrics = RouterMetrics(
        "tiny",
        bench.engine,
        bench.tables,
        Links(bench.clock),
        GateArtifacts(None),
        lambda: 0,
        bench.clock,
        detail=False,
    )
    before = len(read(metrics).samples)
    waits = small().with_expert(replace(small().experts[0], on_cold=OnCold.WAIT))
    bench.offer(replace(waits, epoch=2))

    seen = read(metrics)

    assert len(seen.samples) - before == 24
    assert "an expert has onCold: Wait tells 24 more." in PAGE.read_text()
    assert seen.value("moeops_router_cold_rows", mixture="tiny") == 0
    assert seen.value("moeops_router_cold_waits_total", mixture="tiny", end="Served") == 0


def test_an_expert_on_trial_adds_as_many_as_stated() -> None:
    content = large(apart=False)
    before = series(fed(Asked.of(content)))
    row = rolled(content.experts[0], version("new"), Outcome.PROGRESSING)

    after = series(fed(Asked.of(content.with_expert(row))))

    assert after - before == 61  # one cause of its stable version is told already
    assert "An expert on trial adds at most 62." in PAGE.read_text()


def test_a_gate_on_trial_adds_as_many_as_stated() -> None:
    content = large(apart=False)
    before = series(fed(Asked.of(content)))
    (row,) = content.gates
    candidate = replace(row.stable, version="gate-v2", sha256="c" * 64)
    asked = fed(Asked.of(replace(content, gates=(replace(row, candidate=candidate),))))
    counters, sums = asked.bench.engine.counters, asked.bench.engine.scorings
    zero = np.zeros(EXPERTS, np.int64)
    scored = Scored(1, 1.0, 0.0, 0.0, 0.0, zero, zero, 0, 0)
    sample = Sample(row.name, 0, row.stable, candidate, np.zeros((1, 4)), (Batch(1),))
    for layer in range(LAYERS):
        counters.gates.of(row.name, candidate.sha256).layers[layer] = LayerTally(zero + 1, rows=1)
        sums._add(replace(sample, layer=layer), scored)

    # … and one of whether it is loaded, which gate artifacts say.
    assert series(asked) - before == 42 + 10 * LAYERS + EXPERTS


def test_what_is_many_keeps_what_is_on_trial() -> None:
    content, candidate = large(apart=True), version("new")
    row = rolled(content.experts[-1], candidate, Outcome.PROGRESSING)
    asked = fed(Asked.of(content.with_expert(row)))

    seen = read(asked)

    told = seen.of("moeops_router_version_requests_total", expert=row.expert_id, mixture="tiny")
    assert len(told) == 2
    assert len(seen.of("moeops_router_version_requests_total")) == m.MAX_EXPERTS


def test_counters_never_fall() -> None:
    asked = fed(Asked.of(large(apart=False)))
    before = read(asked)
    asked.bench.now_s = 2 * PERIOD_S
    after = read(fed(asked, seed=1))

    for (name, labels), value in before.samples.items():
        if name.endswith("_total"):
            assert after.samples.get((name, labels), value) >= value


PLACE = Place("g", "0" * 64, 3)


def look(loads: Loads, now_s: float, *pairs: int) -> Spread | None:
    loads.look({PLACE: np.array(pairs)}, now_s, 2)
    return loads.spreads.get(PLACE)


def test_a_spread_is_that_of_the_last_whole_period() -> None:
    loads = Loads(0.0)

    first = look(loads, 10.0, 10, 10, 10, 10)
    assert first is not None
    assert first.imbalance == 1.0
    assert look(loads, PERIOD_S, 20, 20, 20, 20) is not None
    assert look(loads, PERIOD_S + 1, 120, 20, 20, 20) is not None  # not over yet
    again = look(loads, 2 * PERIOD_S, 120, 20, 20, 20)
    assert again is not None
    assert again.pairs.tolist() == [100, 0, 0, 0]
    assert (again.imbalance, again.entropy_bits) == (4.0, 0.0)
    assert look(loads, 3 * PERIOD_S, 120, 20, 20, 20) is None  # no rows came


def test_what_moved_or_is_far_from_even_stands_out() -> None:
    loads = Loads(0.0)
    look(loads, PERIOD_S, 100, 100, 100, 100)
    look(loads, 2 * PERIOD_S, 300, 160, 200, 140)

    assert list(loads.moving) == [(PLACE, 0), (PLACE, 3)]


@given(st.lists(st.integers(0, 1 << 40), min_size=1, max_size=300).filter(any))
def test_a_spread_is_within_its_bounds(pairs: list[int]) -> None:
    spread = Spread(np.array(pairs))

    assert 1 <= spread.imbalance <= len(pairs) + 1e-9
    assert -1e-9 <= spread.entropy_bits <= np.log2(len(pairs)) + 1e-9


def test_names_are_told_once_and_end_as_their_kind_asks() -> None:
    names = [name for family in m.FAMILIES for name in family.names]

    assert len(names) == len(set(names))
    for family in m.FAMILIES:
        assert not family.unit or family.name.endswith(f"_{family.unit}")
        assert family.kind is not Kind.COUNTER or family.name.count("_total") == 0
