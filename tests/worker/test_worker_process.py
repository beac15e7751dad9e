"""Real workers, each a process of its own, spoken to over real sockets."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

import grpc
import numpy as np
import pytest
import torch
from grpc_health.v1 import health_pb2, health_pb2_grpc

from moe_core.dtypes import BFLOAT16, FLOAT32, ElementType
from moe_core.exactness import prove
from moe_core.frames import PROTOCOL, Frame, Prefix, Sums, encode, sum_of
from moe_core.kernel import ExpertKernel, torch_dtype
from moe_worker.__main__ import main
from moeops.v1.link_pb2 import LinkFrame
from moeops.v1.types_pb2 import DTYPE_FLOAT32
from moeops.v1.worker_pb2 import AssignedExpert, AssignedState, AssignRequest
from moeops.v1.worker_pb2_grpc import WorkerStub
from tests.support.artifacts import WrittenExpert, write_expert
from tests.support.devices import USUAL
from tests.support.link import Array, Peer, compute, failures, random_rows, rows_of
from tests.worker.process import WorkerProcess, spawn

HIDDEN, INTERMEDIATE = 128, 192
NOT_FOUND, INVALID, DEADLINE = 5, 3, 4


def answer(expert: WrittenExpert, layer: int, rows: Array, element: ElementType) -> Array:
    """Return what the kernel answers here, on the device of a worker, to be met bit for bit."""

    def tensor(array: Array) -> torch.Tensor:
        raw = torch.frombuffer(bytearray(array.tobytes()), dtype=torch_dtype(element))
        return raw.view(array.shape).to(USUAL)

    parts = (tensor(expert.tensors[f"layers.{layer}.{p}_proj"]) for p in ("gate", "up", "down"))
    gate, up, down = parts
    intermediate, hidden = gate.shape
    rule = prove(torch_dtype(element), hidden, intermediate, USUAL)
    kernel = ExpertKernel(gate, up, down, rule)
    raw = kernel(tensor(rows)).cpu().view(torch.uint8).numpy().tobytes()
    return np.frombuffer(raw, element.numpy).reshape(rows.shape)


@pytest.fixture(scope="module")
def experts(tmp_path_factory: pytest.TempPathFactory) -> list[WrittenExpert]:
    directory = tmp_path_factory.mktemp("artifacts")
    return [
        write_expert(
            directory,
            layers=(0, 1),
            hidden_size=HIDDEN,
            intermediate_size=INTERMEDIATE,
            seed=seed,
            broken=seed == 2,
        )
        for seed in range(3)
    ]


@pytest.fixture(scope="module")
def worker(experts: list[WrittenExpert]) -> Iterator[WorkerProcess]:
    assignment = [expert.assigned(f"e{n}") for n, expert in enumerate(experts)]
    with spawn(assignment, HIDDEN, name="pod-1", node="node-1") as worker:
        yield worker
        assert worker.process.poll() is None, worker.log


@pytest.fixture
def peer(worker: WorkerProcess) -> Iterator[Peer]:
    with Peer(worker.link) as peer:
        yield peer


def test_the_inventory_comes_first(peer: Peer, experts: list[WrittenExpert]) -> None:
    inventory = peer.next().header.inventory
    assert inventory.protocol == PROTOCOL
    assert (inventory.worker, inventory.node) == ("pod-1", "node-1")
    assert inventory.incarnation
    assert not inventory.draining
    assert f"BFloat16 {HIDDEN}x{INTERMEDIATE}" in inventory.fingerprint
    assert [(s.expert_id, s.sha256, list(s.layers)) for s in inventory.servable] == [
        (f"e{n}", expert.sha256, [0, 1]) for n, expert in enumerate(experts)
    ]
    assert peer.next_of("heartbeat").protocol == PROTOCOL


def test_a_router_that_says_hello_is_told_again_with_sums(worker: WorkerProcess) -> None:
    with Peer(worker.link) as peer:
        first, again = peer.next_of("inventory"), peer.next_of("inventory")

    assert (first.protocol, again.protocol) == (1, PROTOCOL)
    assert first.header == again.header


@pytest.mark.parametrize("protocol", [1, 2, 3])
def test_routers_of_the_version_before_and_after_are_served(
    worker: WorkerProcess, experts: list[WrittenExpert], protocol: int
) -> None:
    """One of before says no Hello, and understands no frame but those of protocol 1."""
    rows = random_rows(5, HIDDEN, BFLOAT16, seed=1)
    with Peer(worker.link, protocol) as router:
        header = compute(1, [(experts[0].sha256, 5)], hidden_size=HIDDEN)
        router.send(header, rows.tobytes())
        answered = router.result(1)
        beat = router.next_of("heartbeat")

    assert answered.protocol == beat.protocol == min(protocol, PROTOCOL)
    assert bytes(answered.body) == answer(experts[0], 0, rows, BFLOAT16).tobytes()


def test_several_experts_answer_in_one_message_bit_for_bit(
    peer: Peer, experts: list[WrittenExpert]
) -> None:
    rows = random_rows(40, HIDDEN, BFLOAT16, seed=1)
    groups = [(experts[1].sha256, 7), ("cd" * 32, 3), (experts[0].sha256, 30)]
    peer.send(compute(9, groups, hidden_size=HIDDEN, layer=1), rows.tobytes())
    frame = peer.result(9)
    codes = [code for code, _ in failures(frame.header.result)]
    assert codes == [0, NOT_FOUND, 0]
    wanted = np.concatenate(
        [
            answer(experts[1], 1, rows[:7], BFLOAT16),
            answer(experts[0], 1, rows[10:], BFLOAT16),
        ]
    )
    assert bytes(frame.body) == wanted.tobytes()
    norms = np.linalg.norm(wanted[:7].astype(np.float64), axis=1).sum()
    assert frame.header.result.groups[0].norm_sum == pytest.approx(norms, rel=1e-4)


def test_a_broken_expert_is_told_by_its_answers(peer: Peer, experts: list[WrittenExpert]) -> None:
    rows = random_rows(4, HIDDEN, BFLOAT16, seed=2)
    rows[1, 5] = np.nan
    peer.send(compute(1, [(experts[2].sha256, 4)], hidden_size=HIDDEN), rows.tobytes())
    (group,) = peer.result(1).header.result.groups
    assert (group.nonfinite_rows, group.norm_sum) == (3, 0)
    assert not group.HasField("failure")


def test_rows_of_two_links_are_mixed_and_have_the_bits_they_have_alone(
    worker: WorkerProcess, experts: list[WrittenExpert]
) -> None:
    small = [random_rows(1 + n % 5, HIDDEN, BFLOAT16, seed=n) for n in range(40)]
    small[13][:] = np.nan
    wanted = [answer(experts[0], 0, rows, BFLOAT16).tobytes() for rows in small]
    giant = random_rows(4096, HIDDEN, BFLOAT16, seed=99)
    before = worker.describe().counters.mixed_batches
    with Peer(worker.link) as one, Peer(worker.link) as two:
        for turn in range(20):
            base = 1000 * (turn + 1)
            header = compute(base, [(experts[1].sha256, 4096)], hidden_size=HIDDEN)
            one.send(header, giant.tobytes())
            for n, rows in enumerate(small):
                for peer in (one, two):
                    groups = [(experts[0].sha256, len(rows))]
                    header = compute(base + n + 1, groups, hidden_size=HIDDEN)
                    peer.send(header, rows.tobytes())
            for n, bits in enumerate(wanted):
                for peer in (one, two):
                    body = bytes(peer.result(base + n + 1).body)
                    assert n == 13 or body == bits, (turn, n)
            one.result(base)
            if worker.describe().counters.mixed_batches > before:
                return
    pytest.fail("no batch ever had rows of two requests")


def test_heartbeats_go_on_through_a_long_computation(
    peer: Peer, experts: list[WrittenExpert]
) -> None:
    rows = 30_000
    body = random_rows(rows, HIDDEN, BFLOAT16, seed=3).tobytes()
    beats = 0
    for attempt in range(1, 30):
        peer.send(compute(attempt, [(experts[0].sha256, rows)], hidden_size=HIDDEN), body)
        while (frame := peer.next()).header.WhichOneof("kind") != "result":
            beats += frame.header.heartbeat.queued_rows == rows
        if beats >= 3:
            return
    pytest.fail(f"{beats} heartbeats came while rows were computed")


def test_heartbeats_tell_what_was_computed_and_how_long_attempts_waited(
    worker: WorkerProcess, peer: Peer, experts: list[WrittenExpert]
) -> None:
    for attempt in (1, 2):
        body = random_rows(1000, HIDDEN, BFLOAT16, seed=3).tobytes()
        peer.send(compute(attempt, [(experts[0].sha256, 1000)], hidden_size=HIDDEN), body)
    for attempt in (1, 2):
        peer.result(attempt)
    counted = worker.describe().counters
    while (beat := peer.next_of("heartbeat").header.heartbeat).rows < counted.rows:
        pass
    assert (beat.rows, beat.busy_us) == (counted.rows, counted.busy_us)
    assert beat.queued_attempts == counted.queued_attempts >= 2
    assert beat.queue_us == counted.queue_us > 0


def test_a_deadline_that_passed_in_the_line_is_told(
    peer: Peer, experts: list[WrittenExpert]
) -> None:
    body = random_rows(30_000, HIDDEN, BFLOAT16, seed=3).tobytes()
    sha256 = experts[0].sha256
    peer.send(compute(1, [(sha256, 30_000)], hidden_size=HIDDEN, deadline_ms=1), body)
    ((code, sentence),) = failures(peer.result(1).header.result)
    assert code == DEADLINE
    assert "deadline passed" in sentence


def test_more_rows_than_may_wait_are_sent_back(peer: Peer, experts: list[WrittenExpert]) -> None:
    rows = random_rows(20_000, HIDDEN, BFLOAT16, seed=3).tobytes()
    for attempt in (1, 2):
        header = compute(attempt, [(experts[0].sha256, 20_000)], hidden_size=HIDDEN)
        peer.send(header, rows)
    (group,) = peer.result(2).header.result.groups
    assert group.failure.code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
    assert group.failure.retry_after_ms >= 5
    assert len(peer.result(1).body) == len(rows)


REFUSED = [
    pytest.param({"hidden_size": 64}, 128, INVALID, "hidden_size is 64", id="hidden size"),
    pytest.param({"dtype": DTYPE_FLOAT32}, 512, INVALID, "DTYPE_FLOAT32", id="dtype"),
    pytest.param({"dtype": 0}, 256, INVALID, "DTYPE_UNSPECIFIED", id="no dtype"),
    pytest.param({"layer": 9}, 256, NOT_FOUND, "layer 9", id="layer"),
    pytest.param({}, 255, INVALID, "body has 255 bytes", id="short body"),
    pytest.param({}, 1 << 20, INVALID, "body has 1048576 bytes", id="long body"),
    pytest.param({}, 0, INVALID, "body has 0 bytes", id="no body"),
]


@pytest.mark.parametrize(("changes", "body_bytes", "code", "sentence"), REFUSED)
def test_what_cannot_be_computed_is_refused_and_the_link_goes_on(
    peer: Peer,
    experts: list[WrittenExpert],
    changes: dict[str, int],
    body_bytes: int,
    code: int,
    sentence: str,
) -> None:
    header = compute(1, [(experts[0].sha256, 1)], hidden_size=HIDDEN)
    for name, value in changes.items():
        setattr(header.compute, name, value)
    peer.send(header, bytes(body_bytes))
    ((seen, message),) = failures(peer.result(1).header.result)
    assert (seen, sentence in message) == (code, True), message
    peer.send(compute(2, [(experts[0].sha256, 1)], hidden_size=HIDDEN), bytes(2 * HIDDEN))
    assert failures(peer.result(2).header.result) == [(0, "")]


def inventory_frame() -> bytes:
    frame = LinkFrame()
    frame.inventory.worker = "an impostor"
    return encode(frame)


BREAKS = [
    pytest.param(b"GET / HTTP/1.1\r\nHost: worker\r\n\r\n", id="a browser"),
    pytest.param(Prefix(2**32 - 1, 0, Sums(0, 0)).pack(), id="endless header"),
    pytest.param(Prefix(4, 2**31, Sums(0, 0)).pack(), id="endless body"),
    pytest.param(Prefix(2**32 - 1, 0).pack(), id="endless header, without sums"),
    pytest.param(Prefix(4, 2**63).pack(), id="endless body, without sums"),
    pytest.param(Prefix(4, 0, Sums(crc32(b"\xff" * 4), 0)).pack() + b"\xff" * 4, id="no protobuf"),
    pytest.param(Prefix(4, 0).pack() + b"\xff" * 4, id="no protobuf, without sums"),
    pytest.param(inventory_frame(), id="an inventory from a router"),
    pytest.param(bytes.fromhex("16030100") * 8, id="a TLS client"),
]


@pytest.mark.parametrize("sent", BREAKS)
def test_what_breaks_the_framing_closes_that_link_only(
    worker: WorkerProcess, peer: Peer, experts: list[WrittenExpert], sent: bytes
) -> None:
    with Peer(worker.link) as hostile:
        hostile.sock.sendall(sent)
        assert hostile.hung_up()
    peer.send(compute(1, [(experts[0].sha256, 1)], hidden_size=HIDDEN), bytes(2 * HIDDEN))
    assert failures(peer.result(1).header.result) == [(0, "")]


def test_an_attempt_used_twice_closes_the_link(
    worker: WorkerProcess, experts: list[WrittenExpert]
) -> None:
    body = random_rows(15_000, HIDDEN, BFLOAT16, seed=3).tobytes()
    with Peer(worker.link) as hostile:
        frame = encode(compute(5, [(experts[0].sha256, 15_000)], hidden_size=HIDDEN), body)
        # The second header is enough for the worker: it may hang up before its body is sent.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            hostile.sock.sendall((frame + body) * 2)
        assert hostile.hung_up()


def test_a_peer_that_dies_in_mid_body_leaves_nothing_behind(
    worker: WorkerProcess, peer: Peer, experts: list[WrittenExpert]
) -> None:
    header = compute(1, [(experts[0].sha256, 30_000)], hidden_size=HIDDEN)
    with Peer(worker.link) as dying:
        dying.sock.sendall(encode(header, bytes(30_000 * HIDDEN * 2)) + b"half")
    while peer.next_of("heartbeat").header.heartbeat.queued_rows:
        pass
    peer.send(header, bytes(30_000 * HIDDEN * 2))
    assert failures(peer.result(1).header.result) == [(0, "")]


def test_a_frame_of_a_kind_to_come_is_read_past(peer: Peer, experts: list[WrittenExpert]) -> None:
    unknown = b"\x7a\x03abc"  # field 15 of LinkFrame
    prefix = Prefix(len(unknown), 5, Sums(crc32(unknown), sum_of(b"12345")))
    peer.sock.sendall(prefix.pack() + unknown + b"12345")
    peer.send(compute(2, [(experts[0].sha256, 1)], hidden_size=HIDDEN), bytes(2 * HIDDEN))
    assert failures(peer.result(2).header.result) == [(0, "")]


def health(stub: health_pb2_grpc.HealthStub, service: str) -> str:
    request = health_pb2.HealthCheckRequest(service=service)
    status = stub.Check(request, wait_for_ready=True, timeout=20).status
    name: str = health_pb2.HealthCheckResponse.ServingStatus.Name(status)
    return name


def test_a_life_from_nothing_assigned_to_drained(
    tmp_path: Path, experts: list[WrittenExpert]
) -> None:
    link = f"unix:{tmp_path}/link.sock"
    right = AssignedExpert(expert_id="e0", uri=experts[0].uri, sha256=experts[0].sha256)
    wrong = AssignedExpert(expert_id="e1", uri=experts[1].uri, sha256="ab" * 32)
    with spawn([], HIDDEN, link=link) as worker, grpc.insecure_channel(worker.control) as channel:
        stub, probe = WorkerStub(channel), health_pb2_grpc.HealthStub(channel)
        assert [health(probe, s) for s in ("", "readiness", "liveness")] == ["SERVING"] * 3
        with Peer(link) as peer:
            assert not peer.next().header.inventory.servable

            stub.Assign(AssignRequest(experts=[wrong, right]))
            # One before it may say nothing but the fingerprint, known since loading began.
            while not (inventory := peer.next_of("inventory").header.inventory).servable:
                pass
            assert [s.expert_id for s in inventory.servable] == ["e0"]
            refused, served = worker.describe().assigned
            assert refused.phase == AssignedState.REFUSED
            assert f"{'ab' * 32} was asked for" in refused.failure.message
            assert served.phase == AssignedState.SERVING
            assert health(probe, "readiness") == "NOT_SERVING"
            assert health(probe, "liveness") == "SERVING"

            with pytest.raises(grpc.RpcError) as error:
                stub.Assign(AssignRequest(experts=[AssignedExpert(expert_id="x", sha256="x")]))
            assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert "[0].sha256 is 'x'" in str(error.value.details())

            stub.Assign(AssignRequest(experts=[right]))
            assert health(probe, "") == "SERVING"

            rows = random_rows(20_000, HIDDEN, BFLOAT16, seed=1)
            groups = [(experts[0].sha256, 20_000)]
            peer.send(compute(1, groups, hidden_size=HIDDEN), rows.tobytes())
            worker.signal(signal.SIGTERM)
            seen: dict[str | None, Frame] = {}
            while not {"inventory", "result"} <= seen.keys():
                frame = peer.next()
                seen[frame.header.WhichOneof("kind")] = frame
            assert seen["inventory"].header.inventory.draining
            assert health(probe, "readiness") == "NOT_SERVING"
            assert len(seen["result"].body) == rows.nbytes
            peer.send(compute(2, [(experts[0].sha256, 1)], hidden_size=HIDDEN), bytes(2 * HIDDEN))
            assert failures(peer.result(2).header.result) == [(0, "")]
            assert peer.hung_up()
        assert worker.wait() == 0, worker.log
        assert not Path(link.removeprefix("unix:")).exists()
        for line in ("event=not_loaded", "event=serving", "event=draining", "event=ended"):
            assert line in worker.log


def test_float32_over_concurrent_links(tmp_path: Path) -> None:
    expert = write_expert(tmp_path, hidden_size=HIDDEN, intermediate_size=96, dtype="Float32")
    rows = [random_rows(1 + 7 * n, HIDDEN, FLOAT32, seed=n) for n in range(12)]
    wanted = [answer(expert, 0, r, FLOAT32) for r in rows]
    wrong: list[str] = []

    def talk(link: str) -> None:
        with Peer(link) as peer:
            for n, r in enumerate(rows):
                groups = [(expert.sha256, len(r))]
                header = compute(n, groups, hidden_size=HIDDEN, dtype=DTYPE_FLOAT32)
                peer.send(header, r.tobytes())
            for n, right in enumerate(wanted):
                seen = rows_of(peer.result(n), DTYPE_FLOAT32, HIDDEN)
                if seen.tobytes() != right.tobytes():
                    wrong.append(f"attempt {n}")

    assignment = [expert.assigned("e0")]
    with spawn(assignment, HIDDEN, dtype="Float32") as worker:
        threads = [threading.Thread(target=talk, args=(worker.link,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong


def test_a_port_that_is_taken_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        status = main(["--hidden-size=8", f"--link={address}"])
    error = capsys.readouterr().err
    assert status == 1
    assert "event=cannot_start" in error
    assert "Address already in use" in error
