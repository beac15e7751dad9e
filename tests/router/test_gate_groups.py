"""Pairs by group of sessions and by what rows are about: equal to a plain loop, and told whole."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_core.drift import GROUPS, group_of
from moe_core.policy import Policy, Weights
from moe_operator.asking import router_report
from moe_router.describe_gates import gate_counters
from moeops.v1.router_pb2 import DescribeResponse, SequenceRows
from tests.router.bench import A, B, Bench, C, mixture, worker
from tests.router.test_gate_route import LEGAL, house, route, sequence

EXPERTS = 3
# Sessions, their rows, and what these are about; the same session may come twice.
MESSAGES = st.lists(
    st.tuples(st.integers(0, 30), st.integers(1, 5), st.sampled_from(["", "legal", "code"])),
    min_size=1,
    max_size=8,
    unique_by=lambda one: one[0],
)


def plain(
    sizes: Sequence[tuple[int, int, str]], chosen: Sequence[Sequence[int]]
) -> npt.NDArray[Any]:
    """Return pairs by group and expert, one after another."""
    groups = np.zeros((GROUPS, EXPERTS), np.int64)
    sessions = [number for number, size, _ in sizes for _ in range(size)]
    for number, row in zip(sessions, chosen, strict=True):
        for expert in row:
            groups[group_of(f"s{number}"), expert] += 1
    return groups


@settings(max_examples=30, deadline=None)
@given(MESSAGES, st.integers(0, 1000))
def test_groups_are_those_of_a_plain_loop_whatever_overflows(
    sizes: list[tuple[int, int, str]], seed: int
) -> None:
    draw = random.Random(seed)

    async def served() -> None:
        bench = Bench(mixture(), {"w": worker(A, B, C)})
        rows = sum(size for _, size, _ in sizes)
        chosen = [draw.sample(range(EXPERTS), 2) for _ in range(rows)]
        sequences = [SequenceRows(session=f"s{n}", rows=size) for n, size, _ in sizes]
        await bench.dispatch(chosen, sessions=sequences)
        row = bench.table.gates[0]
        layer = bench.engine.counters.gates.of(row.name, row.stable.sha256).layers[0]
        assert layer.groups.tolist() == plain(sizes, chosen).tolist()
        assert layer.pairs.tolist() == layer.groups.sum(axis=0).tolist()
        assert layer.contexts == {}

    asyncio.run(served())


async def test_rows_that_say_what_they_are_about_are_counted_by_that_too() -> None:
    bench = house(Policy(1, weights=Weights.AS_SCORED, contexts=LEGAL))
    said = [
        sequence(2, context="legal"),
        sequence(1, "t"),
        sequence(1, "u", context="code"),
        sequence(1, "v", context="legal"),
    ]
    await route(bench, [[1.0, 0.5, 0.0]] * 5, *said)
    row = bench.table.gates[0]
    layer = bench.engine.counters.gates.of(row.name, row.stable.sha256).layers[0]
    assert layer.rows == 5
    assert layer.pairs.tolist() == [1, 1, 3]
    assert {name: one.rows for name, one in layer.contexts.items()} == {"legal": 3, "code": 1}
    legal = layer.contexts["legal"].groups
    assert legal[group_of("s")].tolist() == [0, 0, 2]
    assert legal.sum(axis=0).tolist() == [0, 0, 3]
    assert layer.contexts["code"].groups.sum(axis=0).tolist() == [0, 1, 0]


@pytest.mark.parametrize("grouped", [False, True])
async def test_groups_reach_the_operator_where_they_are_asked_for(grouped: bool) -> None:
    bench = house(Policy(2, contexts=LEGAL))
    await route(bench, [[2, 1, 0]] * 2, sequence(1), sequence(1, "t", context="legal"))
    row, view = bench.table.gates[0], bench.tables.view
    assert view is not None
    told = gate_counters(view, bench.engine.counters.gates, (), grouped=grouped)
    digest = row.stable.sha256
    report = router_report(DescribeResponse(gate_counters=told), (), (digest,))
    tallies = report.tallies[digest]
    layer = bench.engine.counters.gates.of(row.name, digest).layers[0]
    assert tallies[0, ""].rows == 2
    assert tallies[0, ""].overflow_pairs == layer.overflow_pairs
    assert list(tallies[0, ""].pairs) == (layer.groups.ravel().tolist() if grouped else [])
    assert set(tallies) == ({(0, ""), (0, "legal")} if grouped else {(0, "")})
    assert router_report(DescribeResponse(gate_counters=told), ()).tallies == {}
