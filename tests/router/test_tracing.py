"""Traces of real routers and workers, as a collector of OpenTelemetry gets them."""

from __future__ import annotations

import secrets
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from prometheus_client.core import Exemplar

from moeops.v1.router_pb2 import DispatchRequest, RowsResponse
from moeops.v1.router_pb2_grpc import RouterStub
from tests.router import process as routers
from tests.router.process import RouterProcess
from tests.support.artifacts import write_expert
from tests.support.collector import Collected, Collector, collector
from tests.support.dispatching import Caller, dispatch_request
from tests.support.program import Program
from tests.support.scrape import scrape
from tests.support.tables import TableFile, expert, gate, table, version
from tests.worker import process as workers
from tests.worker.process import WorkerProcess

HIDDEN = 32
IDS = ("e0", "e1")
CALLER = "00f067aa0ba902b7"
ALL = {"request": 1, "gate": 1, "plan": 1, "attempt": 2, "compute": 2, "combine": 1}
OFF = {"OTEL_TRACES_SAMPLER": "parentbased_always_off"}


@dataclass
class House:
    """A router over two workers, each with one expert; all of them tell the collector."""

    collected: Collector
    file: TableFile
    workers: list[WorkerProcess]
    router: RouterProcess

    def request(self, traceparent: str = "") -> DispatchRequest:
        made = dispatch_request(self.file.table, [[0, 1], [1, 0], [0, 1]])
        made.traceparent = traceparent
        return made

    def ask(self, traceparent: str = "") -> RowsResponse:
        with Caller(self.router.address) as caller:
            (answer,) = caller.dispatch(self.request(traceparent))
        return answer


@contextmanager
def house(directory: Path, collected: Collector, variables: Mapping[str, str]) -> Iterator[House]:
    experts = [write_expert(directory, hidden_size=HIDDEN, seed=n) for n in range(2)]
    rows = [
        expert(name, version("v1", one.sha256, one.uri))
        for name, one in zip(IDS, experts, strict=True)
    ]
    file = TableFile(directory / "table.yaml", table(rows, [gate(IDS)], hidden_size=HIDDEN))
    around = {**collected.environment, **variables}
    first, second = [one.assigned(name) for name, one in zip(IDS, experts, strict=True)]
    with (
        workers.spawn([first], HIDDEN, name="w0", variables=around) as w0,
        workers.spawn([second], HIDDEN, name="w1", variables=around) as w1,
        routers.spawn(
            around,
            mixture="tiny",
            table_file=str(file.path),
            workers=f"{w0.link},{w1.link}",
            name="r0",
        ) as router,
    ):
        router.wait_until_routable([one.sha256 for one in experts])
        yield House(collected, file, [w0, w1], router)


@pytest.fixture(scope="module")
def by_caller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Everybody traces what a caller traces, and nothing else."""
    with collector() as collected, house(tmp_path_factory.mktemp("x"), collected, OFF) as it:
        yield it


def sampled(trace: str) -> str:
    return f"00-{trace}-{CALLER}-01"


def one_request(it: House) -> tuple[RowsResponse, list[Collected]]:
    """Ask once, in a new trace; return the answer and all spans of it."""
    trace = secrets.token_hex(16)
    answer = it.ask(sampled(trace))
    spans = it.collected.wait_for(ALL, trace)
    assert Counter(one.name for one in spans) == ALL
    return answer, spans


def test_a_request_is_one_tree_with_the_versions_that_were_used(by_caller: House) -> None:
    answer, spans = one_request(by_caller)
    by_id = {one.span_id: one for one in spans}
    of = {one.name: one for one in spans}

    assert of["request"].parent_id == CALLER
    parents = {one.name: by_id[one.parent_id].name for one in spans if one.name != "request"}
    assert parents == {
        "gate": "request",
        "plan": "request",
        "attempt": "request",
        "combine": "request",
        "compute": "attempt",
    }
    assert {one.service for one in spans if one.name == "compute"} == {"moe-worker"}
    assert {one.service for one in spans if one.name != "compute"} == {"moe-router"}
    kinds = {one.name: one.kind for one in spans}
    assert (kinds["request"], kinds["attempt"], kinds["compute"]) == ("SERVER", "CLIENT", "SERVER")
    assert of["request"].attributes == {
        "moe.mixture": "tiny",
        "moe.epoch": answer.epoch,
        "moe.layer": 0,
        "moe.rows": 3,
        "moe.sessions": 1,
    }
    the_gate = by_caller.file.table.gates[0].stable
    assert of["gate"].attributes == {
        "moe.gate": "gate",
        "moe.versions": [the_gate.version],
        "moe.sha256": [the_gate.sha256],
        "moe.pairs": 6,
    }
    assert of["combine"].attributes == {"moe.rungs": [], "moe.degraded_pairs": 0}


def test_attempts_say_who_was_asked_for_what(by_caller: House) -> None:
    _, spans = one_request(by_caller)
    asked = {one.span_id: one for one in spans if one.name == "attempt"}
    for row, worker in zip(by_caller.file.table.experts, by_caller.workers, strict=True):
        (attempt,) = [
            one.attributes
            for one in asked.values()
            if one.attributes["moe.expert"] == row.expert_id
        ]
        assert row.stable is not None
        assert attempt == {
            "moe.worker": worker.link,
            "moe.expert": row.expert_id,
            "moe.version": "v1",
            "moe.sha256": row.stable.sha256,
            "moe.rows": 3,
            "moe.rung": "",
            "moe.hedged": False,
            "moe.outcome": "Answered",
        }
    for one in spans:
        if one.name == "compute":
            above = asked[one.parent_id]
            assert one.attributes["moe.sha256"] == above.attributes["moe.sha256"]
            assert one.attributes["moe.rows"] == 3
            assert one.attributes["moe.compute_us"] > 0
            assert one.attributes["moe.queue_us"] >= 0
            assert one.resource["k8s.pod.name"] in ("w0", "w1")
            assert above.began_ns <= one.began_ns <= one.ended_ns


def test_metrics_name_a_trace_with_what_it_took(by_caller: House) -> None:
    _, spans = one_request(by_caller)
    ids = {one.name: {"trace_id": one.trace_id, "span_id": one.span_id} for one in spans}
    requests = [found.labels for found in exemplars(by_caller.router, "router_request_duration")]
    stages = [found.labels for found in exemplars(by_caller.router, "router_stage_duration")]
    assert ids["request"] in requests
    assert stages.count(ids["request"]) == 3
    mine = [one for one in spans if one.name == "compute"]
    for worker in by_caller.workers:
        told = exemplars(worker, "worker_queue_delay") + exemplars(worker, "worker_compute")
        (own,) = {one.labels["span_id"] for one in told} & {one.span_id for one in mine}
        assert sum(one.labels["span_id"] == own for one in told) == 2


def exemplars(program: Program, name: str) -> list[Exemplar]:
    told = scrape(program.metrics).exemplars
    return [one for (sample, _), one in told.items() if sample.startswith(f"moeops_{name}")]


def test_a_caller_may_say_it_in_the_metadata_of_a_stream(by_caller: House) -> None:
    trace, other = secrets.token_hex(16), secrets.token_hex(16)
    with grpc.insecure_channel(by_caller.router.address) as channel:
        stub = RouterStub(channel)
        said = (("traceparent", sampled(trace)),)
        requests = [by_caller.request(), by_caller.request(sampled(other))]
        assert len([a for a in stub.Dispatch(iter(requests), metadata=said) if a.request_id]) == 2

    (request,) = [
        one for one in by_caller.collected.wait_for({"request": 1}, trace) if one.name == "request"
    ]
    assert request.parent_id == CALLER
    assert by_caller.collected.wait_for({"request": 1}, other), "what a message says counts more"


def test_a_refused_request_says_why(by_caller: House) -> None:
    trace = secrets.token_hex(16)
    request = by_caller.request(sampled(trace))
    request.layer = 7
    with Caller(by_caller.router.address) as caller:
        (answer,) = caller.dispatch(request)
    (span,) = by_caller.collected.wait_for({"request": 1}, trace)
    assert span.failure == answer.failure.message
    assert "layer is 7" in span.failure
    (line,) = [one for one in by_caller.router.lines if trace in one]
    assert "event=request_refused" in line
    assert f"span_id={span.span_id}" in line


def test_a_caller_who_does_not_trace_is_not_traced(by_caller: House) -> None:
    before = {one.trace_id for one in by_caller.collected.spans()}
    by_caller.ask(f"00-{secrets.token_hex(16)}-{CALLER}-00")
    by_caller.ask()
    by_caller.ask("nonsense")
    _, spans = one_request(by_caller)  # spans are sent in their order: nothing is behind these
    after = {one.trace_id for one in by_caller.collected.spans()}
    assert after - before == {spans[0].trace_id}


def test_the_way_up_the_ladder_is_told(tmp_path: Path) -> None:
    with collector() as collected, house(tmp_path, collected, {}) as it:
        rows = list(it.file.table.experts)
        it.workers[0].signal(signal.SIGSTOP)
        trace = secrets.token_hex(16)
        answer = it.ask(sampled(trace))
        assert not answer.HasField("failure"), answer.failure.message
        it.workers[0].signal(signal.SIGCONT)
        spans = collected.wait_for({"request": 1, "combine": 1, "attempt": 2}, trace)

        lost = [one for one in spans if one.attributes.get("moe.expert") == rows[0].expert_id]
        assert {one.attributes["moe.outcome"] for one in lost} == {"Broken"}
        assert all(one.failure for one in lost)
        (combine,) = [one for one in spans if one.name == "combine"]
        assert combine.attributes["moe.rungs"] == ["Renormalise/e0"]
        assert combine.attributes["moe.degraded_pairs"] == 3


def test_spans_are_sent_before_a_router_ends_and_nobody_waits_for_a_dead_collector(
    tmp_path: Path,
) -> None:
    slow = {"OTEL_BSP_SCHEDULE_DELAY": "600000"}
    trace = secrets.token_hex(16)
    with collector() as collected, house(tmp_path, collected, slow) as it:
        it.ask(sampled(trace))
        it.router.signal(signal.SIGTERM)
        assert it.router.wait() == 0
        told = Counter(one.name for one in collected.spans(trace))
        assert told == {name: n for name, n in ALL.items() if name != "compute"}
        it.workers[0].signal(signal.SIGTERM)
        assert it.workers[0].wait() == 0
        assert Counter(one.name for one in collected.spans(trace))["compute"] == 1
        collected.stop()
        it.workers[1].signal(signal.SIGTERM)
        assert it.workers[1].wait() == 0, "nobody is there to take its spans"


def test_where_nothing_is_traced_opentelemetry_is_not_loaded(tmp_path: Path) -> None:
    code = """
import sys
sys.argv = ["x"]
from moe_router.program import Router, tracer
from moe_router.settings import parse
assert tracer(parse(["--mixture", "tiny"], {})).begin("request", None, 0.0) is None
import moe_worker.program, moe_client, moe_operator.program
found = [name for name in sys.modules if name.startswith("opentelemetry")]
assert not found, found
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "program", [["moe_router", "--mixture", "m"], ["moe_worker", "--hidden-size", "8"]]
)
def test_a_wrong_setting_ends_a_program_with_what_would_be_right(program: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *program],
        env={"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4317", "PATH": "/usr/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    said = "OTEL_EXPORTER_OTLP_ENDPOINT is 'collector:4317'; it must be http://HOST:PORT"
    assert said in done.stderr
