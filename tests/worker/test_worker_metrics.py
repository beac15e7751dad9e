"""What a worker's metrics say of its counters, and how many they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from moe_worker import metrics as m
from moe_worker.assignment import Assigned
from moe_worker.backlog import Backlog
from moe_worker.collect import WorkerMetrics
from moe_worker.counters import BOUNDS_S, Counters
from moe_worker.failure import Code
from moe_worker.loader import State, after
from moe_worker.phases import Event, Phase
from tests.support.scrape import read

A, B = "a" * 64, "b" * 64


class Clock:
    def __init__(self) -> None:
        self.us = 0

    def __call__(self) -> int:
        return self.us


def assigned(expert_id: str, sha256: str, version: str = "v1") -> Assigned:
    return Assigned(expert_id, version, "file:///a", sha256)


def metrics(
    counters: Counters, states: Sequence[tuple[Assigned, State]], *, detail: bool = False
) -> WorkerMetrics:
    return WorkerMetrics(
        "tiny", counters, Backlog(64), lambda: states, lambda: "cpu", detail=detail
    )


def counted() -> Counters:
    clock = Clock()
    counters = Counters(clock)
    for slot, rows, us in (((A, 0), 3, 500), ((A, 1), 4, 1000), ((B, 0), 5, 2000)):
        counters.began()
        clock.us += us
        counters.computed(rows, 1, slot)
    counters.answered([], (100, 1500))
    counters.answered([Code.NOT_FOUND, Code.INTERNAL])
    return counters


SERVING = State(Phase.SERVING, layers=(0, 1))


def test_sums_are_by_expert_and_in_full_by_layer() -> None:
    states = [(assigned("e0", A), SERVING), (assigned("e1", B), SERVING)]

    seen = read(metrics(counted(), states, detail=True))

    own = {"mixture": "tiny"}
    assert seen.value("moeops_worker_rows_total", **own) == 12
    assert seen.value("moeops_worker_busy_seconds_total", **own) == pytest.approx(0.0035)
    rows = {("e0", "v1"): 7, ("e1", "v1"): 5}
    assert seen.of("moeops_worker_expert_rows_total", **own) == rows
    assert seen.of("moeops_worker_layer_rows_total", **own) == {
        ("e0", "0", "v1"): 3,
        ("e0", "1", "v1"): 4,
        ("e1", "0", "v1"): 5,
    }
    failures = seen.of("moeops_worker_group_failures_total", **own)
    assert failures == {(code.name,): int(code in (5, 13)) for code in Code}
    assert seen.value("moeops_worker_queue_delay_seconds_count", **own) == 1
    assert seen.value("moeops_worker_queue_delay_seconds_sum", **own) == pytest.approx(1e-4)
    assert seen.value("moeops_worker_compute_duration_seconds_count", **own) == 1


def test_layers_are_told_only_in_full() -> None:
    seen = read(metrics(counted(), [(assigned("e0", A), SERVING)]))

    assert "moeops_worker_layer_rows_total" not in seen.names
    assert seen.value("moeops_worker_expert_rows_total", mixture="tiny", expert="e0", version="v1")


def test_one_artifact_under_two_ids_is_told_once_and_two_of_one_name_apart() -> None:
    states = [
        (assigned("e0", A), SERVING),
        (assigned("twin", A), SERVING),
        (assigned("e0", B), SERVING),
    ]

    seen = read(metrics(counted(), states))

    rows = {("e0", "v1"): 7, ("e0", f"v1@{B[:10]}"): 5}
    assert seen.of("moeops_worker_expert_rows_total", mixture="tiny") == rows


def test_stages_took_what_the_clock_says() -> None:
    state = replace(State(), since=10.0)
    for event, now in ((Event.FETCHED, 12.0), (Event.VERIFIED, 12.5), (Event.LOADED, 14.0)):
        state = after(state, event, None, now)
    waiting = after(State(), Event.UNAVAILABLE, None, 3.0)

    seen = read(metrics(counted(), [(assigned("e0", A), state), (assigned("e1", B), waiting)]))

    stages = {("e0", "fetch", "v1"): 2.0, ("e0", "verify", "v1"): 0.5, ("e0", "load", "v1"): 1.5}
    assert seen.of("moeops_worker_expert_stage_seconds", mixture="tiny") == stages
    assert seen.of("moeops_worker_expert_phase", mixture="tiny") == {
        ("e0", "WARMING", "v1"): 1,
        ("e1", "FETCHING", "v1"): 1,
    }


def test_series_are_as_many_as_stated() -> None:
    """One expert of 58 layers, as in a pod."""
    clock = Clock()
    counters = Counters(clock)
    for layer in range(58):
        counters.began()
        counters.computed(1, 1, (A, layer))
    state = replace(SERVING, took={event: 1.0 for event in Event if event.value <= 4})
    own = [(assigned("e0", A), state)]
    process = 6
    # What the reference says: 7 sums and the info, 7 codes, 2 histograms of 20, 1 + 4 + 3 of it.
    rolled_up = process + 8 + 7 + 2 * (len(BOUNDS_S) + 3) + 8

    assert len(read(metrics(counters, own)).samples) == rolled_up
    assert len(read(metrics(counters, own, detail=True)).samples) == rolled_up + 2 * 58


def test_names_are_told_once() -> None:
    names = [name for family in m.FAMILIES for name in family.names]

    assert len(names) == len(set(names))
