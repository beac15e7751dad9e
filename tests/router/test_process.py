"""Real routers and real workers, each a process: deaths, silence, draining, restarts."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import grpc
import ml_dtypes
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from moe_core.rows import OnCold
from moeops.v1.router_pb2 import (
    RUNG_BACKUP,
    RUNG_REPLICA,
    DescribeMixtureRequest,
    DispatchRequest,
    LinkState,
    RouteRequest,
    SequenceRows,
)
from moeops.v1.router_pb2_grpc import RouterStub
from tests.router import process as routers
from tests.router.process import RouterProcess
from tests.support.artifacts import WrittenExpert, write_expert
from tests.support.dispatching import Caller, SteadyCaller, dispatch_request, rows_of
from tests.support.gates import write_gate
from tests.support.tables import TableFile, expert, gate, table, version
from tests.worker import process as workers
from tests.worker.process import WorkerProcess

HIDDEN = 32
IDS = ("e0", "e1")


@dataclass(frozen=True)
class Parts:
    """Two experts, and a worker that holds both and outlives every test."""

    experts: list[WrittenExpert]
    survivor: WorkerProcess

    @property
    def assigned(self) -> list[dict[str, object]]:
        return [e.assigned(name) for name, e in zip(IDS, self.experts, strict=True)]

    @property
    def digests(self) -> list[str]:
        return [e.sha256 for e in self.experts]


@dataclass
class House:
    """A router over the surviving worker and, in some tests, one that will suffer."""

    parts: Parts
    file: TableFile
    workers: list[WorkerProcess]
    router: RouterProcess

    def request(self, seed: int = 0) -> DispatchRequest:
        return dispatch_request(self.file.table, [[0, 1], [1, 0], [0, 1]], seed=seed)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parts]:
    directory = tmp_path_factory.mktemp("artifacts")
    written = [write_expert(directory, hidden_size=HIDDEN, seed=n) for n in range(2)]
    assigned = [e.assigned(name) for name, e in zip(IDS, written, strict=True)]
    with workers.spawn(assigned, HIDDEN, name="survivor") as survivor:
        yield Parts(written, survivor)


@contextmanager
def house(directory: Path, parts: Parts, *others: WorkerProcess, **flags: str) -> Iterator[House]:
    rows = [
        expert(name, version("v1", e.sha256, e.uri))
        for name, e in zip(IDS, parts.experts, strict=True)
    ]
    file = TableFile(directory / "table.yaml", table(rows, [gate(IDS)], hidden_size=HIDDEN))
    everyone = [*others, parts.survivor]
    links = ",".join(worker.link for worker in everyone)
    with routers.spawn(mixture="tiny", table_file=str(file.path), workers=links, **flags) as router:
        router.wait_until_routable(parts.digests, workers=len(everyone))
        yield House(parts, file, everyone, router)


@contextmanager
def house_with_victim(directory: Path, parts: Parts) -> Iterator[House]:
    with (
        workers.spawn(parts.assigned, HIDDEN, name="victim") as victim,
        house(directory, parts, victim) as it,
    ):
        yield it


def steady_calls(it: House) -> SteadyCaller:
    return SteadyCaller(it.router.address, it.request())


def states(router: RouterProcess) -> dict[str, int]:
    return {link.address: link.state for link in router.describe().links}


def wait_for_state(router: RouterProcess, address: str, state: int) -> None:
    until = time.monotonic() + 20
    while states(router)[address] != state:
        assert time.monotonic() < until, f"{address} never came to {state}\n{router.log}"
        time.sleep(0.02)


def test_what_a_heartbeat_says_is_handed_on(tmp_path: Path, parts: Parts) -> None:
    with house(tmp_path, parts) as it, steady_calls(it) as steady:
        steady.wait_for(20)
        steady.end()
        while (link := it.router.describe().links[0]).computed_rows < link.rows:
            time.sleep(0.02)
        assert link.rows > 0
        assert link.busy_us > 0
        assert link.queued_attempts >= 20
        assert link.queue_us > 0


def test_a_worker_killed_under_load_fails_no_request(tmp_path: Path, parts: Parts) -> None:
    with (
        house_with_victim(tmp_path, parts) as it,
        SteadyCaller(it.router.address, it.request()) as steady,
    ):
        steady.wait_for(200)
        victim, survivor = it.workers
        before = {link.address: link.rows for link in it.router.describe().links}
        assert before[victim.link] > 0, "the victim had work"

        victim.kill()
        steady.wait_for(200)
        steady.end()

        assert steady.failures == []
        assert states(it.router)[victim.link] == LinkState.CONNECTING
        assert states(it.router)[survivor.link] == LinkState.LIVE
        rungs = [rung for a in steady.answers for s in a.sequences for rung in s.rungs]
        assert {rung.rung for rung in rungs} <= {RUNG_REPLICA}
        assert not any(s.degraded for a in steady.answers for s in a.sequences)
        assert len({a.hidden for a in steady.answers}) == 1, "the same bits from either worker"


def test_a_worker_that_falls_silent_under_load_fails_no_request_and_comes_back(
    tmp_path: Path, parts: Parts
) -> None:
    with (
        house_with_victim(tmp_path, parts) as it,
        SteadyCaller(it.router.address, it.request()) as steady,
    ):
        steady.wait_for(100)
        victim = it.workers[0]

        victim.signal(signal.SIGSTOP)
        wait_for_state(it.router, victim.link, LinkState.SILENT)
        steady.wait_for(100)
        victim.signal(signal.SIGCONT)
        wait_for_state(it.router, victim.link, LinkState.LIVE)
        steady.wait_for(100)
        steady.end()

        assert steady.failures == []
        counted = [rung for rung in it.router.describe().rungs if rung.rows]
        assert {rung.rung for rung in counted} == {RUNG_REPLICA}
        assert len({a.hidden for a in steady.answers}) == 1


def test_a_worker_told_to_end_drains_and_fails_no_request(tmp_path: Path, parts: Parts) -> None:
    with (
        house_with_victim(tmp_path, parts) as it,
        SteadyCaller(it.router.address, it.request()) as steady,
    ):
        steady.wait_for(100)

        it.workers[0].signal(signal.SIGTERM)
        assert it.workers[0].wait() == 0
        steady.wait_for(50)
        steady.end()

        assert steady.failures == []
        assert not any(s.rungs for a in steady.answers for s in a.sequences), "nothing was lost"


def test_a_table_swap_moves_new_sessions_and_the_last_worker_lost_is_backed_up(
    tmp_path: Path, parts: Parts
) -> None:
    with house(tmp_path, parts) as it, Caller(it.router.address) as caller:
        (first,) = caller.dispatch(it.request())
        token = first.sequences[0].start_token
        swapped = it.file.write(
            table(
                [
                    expert("e0", version("v1", parts.digests[0])),
                    expert("e1", version("gone"), backup="e0"),
                ],
                [gate(IDS)],
                hidden_size=HIDDEN,
            )
        )
        it.router.wait_for_epoch(swapped.epoch)
        sessions = [SequenceRows(session="s", rows=1, start_token=token)]

        (second,) = caller.dispatch(dispatch_request(swapped, [[0, 1]], sessions=sessions))
        both = dispatch_request(swapped, [[0, 0]], seed=0)
        (plain,) = caller.dispatch(both)

        assert second.epoch == swapped.epoch == first.epoch + 1
        assert [(r.rung, r.expert_id, r.rows) for r in second.sequences[0].rungs] == [
            (RUNG_BACKUP, "e1", 1)
        ]
        assert second.sequences[0].degraded_ppm == 500_000
        np.testing.assert_array_equal(rows_of(swapped, second), rows_of(swapped, plain))


def test_a_router_that_just_started_degrades_nothing(tmp_path: Path, parts: Parts) -> None:
    with (
        house(tmp_path, parts) as it,
        routers.spawn(
            mixture="tiny", table_file=str(it.file.path), workers=parts.survivor.link
        ) as fresh,
        Caller(fresh.address) as caller,
    ):
        early = []
        while True:
            (answer,) = caller.dispatch(it.request())
            if not answer.HasField("failure"):
                break
            early.append(answer.failure.message)

        assert set(early) <= {"this router has no routing table yet"}
        assert not answer.sequences[0].rungs


def test_route_applies_the_gates_artifact(tmp_path: Path, parts: Parts) -> None:
    with house(tmp_path, parts) as it:
        weight = np.eye(2, HIDDEN, dtype=np.float32)
        written = write_gate(tmp_path, {0: weight}, IDS)
        stable = version("g2", written.sha256, written.path.as_uri())
        content = it.file.write(replace(it.file.table, gates=(gate(IDS, top_k=2, stable=stable),)))
        it.router.wait_for_epoch(content.epoch)
        hidden = np.random.default_rng(5).standard_normal((3, HIDDEN))
        logits = hidden.astype(ml_dtypes.bfloat16).astype(np.float32)[:, :2]
        chosen = np.argsort(-logits, axis=1)
        share = np.exp(np.take_along_axis(logits, chosen, 1))
        share /= share.sum(axis=1, keepdims=True)
        same = dispatch_request(content, chosen.tolist(), weights=share.tolist(), hidden=hidden)
        route = RouteRequest(
            request_id=1,
            mixture="tiny",
            dtype=same.dtype,
            hidden_size=HIDDEN,
            sequences=same.sequences,
            hidden=same.hidden,
        )
        with Caller(it.router.address) as caller:
            (dispatched,) = caller.dispatch(same)
            routed = caller.route(route)

        np.testing.assert_allclose(
            rows_of(content, routed).astype(np.float32),
            rows_of(content, dispatched).astype(np.float32),
            rtol=1e-2,
        )


def test_a_stream_outlives_requests_that_fail(tmp_path: Path, parts: Parts) -> None:
    with house(tmp_path, parts) as it, Caller(it.router.address) as caller:
        bad = it.request()
        bad.hidden_size = 7
        other = it.request()
        other.mixture = "another"

        refused, answered, unmet = caller.dispatch(bad, it.request(), other)

        assert refused.failure.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
        assert "hidden_size is 7; it must be 32" in refused.failure.message
        assert not answered.HasField("failure")
        assert unmet.failure.code == grpc.StatusCode.FAILED_PRECONDITION.value[0]


def test_a_message_too_large_ends_its_stream_and_nothing_else(tmp_path: Path, parts: Parts) -> None:
    with house(tmp_path, parts) as it:
        huge = it.request()
        huge.hidden = bytes((256 << 20) + 1)
        options = [("grpc.max_send_message_length", -1)]
        with grpc.insecure_channel(it.router.address, options=options) as channel:
            with pytest.raises(grpc.RpcError) as caught:
                list(RouterStub(channel).Dispatch(iter([huge]), timeout=30))
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        with Caller(it.router.address) as caller:
            (answer,) = caller.dispatch(it.request())
            assert not answer.HasField("failure")


def test_a_router_told_to_end_answers_what_it_has(tmp_path: Path, parts: Parts) -> None:
    with house(tmp_path, parts, drain_seconds="0.2") as it:
        with steady_calls(it) as steady:
            steady.wait_for(50)
            it.router.signal(signal.SIGTERM)
            assert it.router.wait() == 0
        assert steady.failures == []


def test_a_router_starts_from_its_copy_of_the_table(tmp_path: Path, parts: Parts) -> None:
    cache = tmp_path / "cache"
    with house(tmp_path, parts, cache=str(cache)) as it:
        it.router.signal(signal.SIGTERM)
        it.router.wait()
        it.file.path.unlink()
        with routers.spawn(
            mixture="tiny",
            table_file=str(it.file.path),
            workers=it.workers[0].link,
            cache=str(cache),
        ) as again:
            again.wait_until_routable(parts.digests)
            with Caller(again.address) as caller:
                (answer,) = caller.dispatch(it.request())
            assert rows_of(it.file.table, answer).shape == (3, HIDDEN)
            assert "event=table_from_copy" in again.log


def test_rows_wait_for_a_worker_that_is_started_for_them(tmp_path: Path, parts: Parts) -> None:
    """And get from it, whole, what they would have got had it been there."""
    late = write_expert(tmp_path, hidden_size=HIDDEN, seed=9)
    sleeper = replace(expert("e2", version("v1", late.sha256)), on_cold=OnCold.WAIT)
    rows = [expert(i, version("v1", e.sha256)) for i, e in zip(IDS, parts.experts, strict=True)]
    content = table([*rows, sleeper], [gate((*IDS, "e2"))], hidden_size=HIDDEN)
    file, link = TableFile(tmp_path / "table.yaml", content), f"unix:{tmp_path}/late"
    addresses = f"{parts.survivor.link},{link}"
    asked = [dispatch_request(content, [[0, 2], [2, 1]], deadline_ms=60_000) for _ in range(2)]
    with (
        routers.spawn(mixture="tiny", table_file=str(file.path), workers=addresses) as router,
        ThreadPoolExecutor() as pool,
        Caller(router.address) as caller,
    ):
        router.wait_until_routable(parts.digests)
        first = pool.submit(caller.dispatch, asked[0], timeout_s=60.0)
        until = time.monotonic() + 20
        while not (seen := [v.waiting_rows for v in router.describe().versions if v.waiting_rows]):
            assert time.monotonic() < until, "no row waits"
            time.sleep(0.02)
        with workers.spawn([late.assigned("e2")], HIDDEN, name="late", link=link):
            (waited,) = first.result(60)
            (warm,) = caller.dispatch(asked[1])
        assert seen == [2]
        assert waited.hidden == warm.hidden
        assert not any(s.rungs for answer in (waited, warm) for s in answer.sequences)
        (tally,) = (v for v in router.describe().versions if v.expert_id == "e2")
        assert (tally.waiting_rows, dict(tally.errors)) == (0, {})


def health(router: RouterProcess, service: str) -> int:
    with grpc.insecure_channel(router.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest(service=service)
        return int(stub.Check(request, wait_for_ready=True, timeout=10).status)


def test_it_is_alive_at_once_and_ready_with_its_first_table(tmp_path: Path) -> None:
    path = tmp_path / "table.yaml"
    serving = int(health_pb2.HealthCheckResponse.SERVING)
    with routers.spawn(mixture="tiny", table_file=str(path), workers="127.0.0.1:1") as router:
        assert health(router, "liveness") == serving
        assert [health(router, name) == serving for name in ("", "readiness")] == [False, False]
        with grpc.insecure_channel(router.address) as channel:
            with pytest.raises(grpc.RpcError) as caught:
                RouterStub(channel).DescribeMixture(DescribeMixtureRequest(), timeout=10)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE

        TableFile(path, table([expert("e0")], [gate(["e0"], top_k=1)]))
        router.wait_for_epoch(1)

        assert [health(router, name) == serving for name in ("", "readiness")] == [True, True]
        with grpc.insecure_channel(router.address) as channel:
            seen = RouterStub(channel).DescribeMixture(DescribeMixtureRequest(), timeout=10)
        assert (seen.mixture, seen.hidden_size, seen.gates[0].top_k) == ("tiny", 32, 1)


@pytest.mark.parametrize(
    ("flags", "status", "words"),
    [
        pytest.param([], 2, "--mixture (MOE_MIXTURE) is missing", id="no mixture"),
        pytest.param(
            ["--mixture", "m", "--listen", "here"], 2, "--listen is 'here'", id="no address"
        ),
        pytest.param(
            ["--mixture", "m", "--kubeconfig", "/nowhere"],
            1,
            "no API server to ask",
            id="no cluster",
        ),
        pytest.param(["--nonsense", "x"], 2, "--nonsense", id="no such flag"),
    ],
)
def test_wrong_flags_end_it_with_a_sentence(flags: list[str], status: int, words: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "moe_router", *flags],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ended.returncode == status
    assert words in ended.stderr
