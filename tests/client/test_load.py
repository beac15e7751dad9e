"""Steady load and its figures: arithmetic on records, and real requests to fake routers."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from moe_client import load
from moe_client.figures import Record, longest_stall, report
from moe_client.recorder import record
from moe_client.recording import Recording, load_recording
from moe_client.steady import SteadyLoad
from tests.client.test_attachment import logits, serving, some_tokens
from tests.client.tiny import load_tiny, save_tiny
from tests.fakes.router import Exchange, FakeRouter, echo, in_a_thread, refuse


def answered(began_s: float, ended_s: float, **more: object) -> Record:
    return Record(began_s, ended_s, 1, **more)  # type: ignore[arg-type]


def failed(began_s: float, ended_s: float) -> Record:
    return Record(began_s, ended_s, 1, failure="UNAVAILABLE: no")


@pytest.mark.parametrize(
    ("records", "waiting", "stall"),
    [
        pytest.param([], [], 0.0, id="nothing was asked"),
        pytest.param([answered(0, 1)], [], 1.0, id="one request"),
        pytest.param([answered(0, 1), answered(5, 6)], [], 1.0, id="nobody waits in between"),
        pytest.param([answered(0, 1), answered(0, 6)], [], 5.0, id="one waits in between"),
        pytest.param([answered(0, 1), answered(2, 6)], [], 4.0, id="from when it began"),
        pytest.param([answered(0, 1), failed(1, 3), answered(3, 4)], [], 3.0, id="failures waited"),
        pytest.param([failed(0, 3)], [], 3.0, id="nothing was answered"),
        pytest.param([answered(0, 1)], [2.0], 8.0, id="one waits to the end"),
    ],
)
def test_the_longest_stall(records: list[Record], waiting: list[float], stall: float) -> None:
    assert longest_stall(records, waiting, until_s=10.0) == stall


moments = st.tuples(st.integers(0, 60), st.integers(1, 20), st.booleans())


@given(st.lists(moments, max_size=12))
def test_the_longest_stall_is_what_a_look_at_each_moment_says(
    given_moments: list[tuple[int, int, bool]],
) -> None:
    records = [
        (answered if good else failed)(began, began + took) for began, took, good in given_moments
    ]
    longest = run = 0
    for moment in range(100):
        waits = any(r.began_s <= moment < r.ended_s for r in records)
        done = any(r.ended_s == moment for r in records if r.failure is None)
        run = (0 if done else run) + 1 if waits else 0
        longest = max(longest, run)
    # Time in which nobody waits ends a run here, and may lie inside a gap there.
    assert longest_stall(records, [], 100.0) >= longest


def test_a_report_counts_what_began_in_its_window() -> None:
    rung = (("Backup", "e3", 2),)
    records = [
        answered(0.0, 0.1, epoch=1),
        answered(1.0, 1.1, epoch=2, degraded_ppm=5, rungs=rung, different=True),
        answered(1.2, 1.4, epoch=2, rungs=rung, different=False),
        failed(1.5, 1.9),
        answered(2.5, 2.6),
    ]
    seen = report(records, [], 1.0, 2.0)
    assert (seen.requests, seen.failed, seen.rows) == (3, 1, 3)
    assert seen.failures == {"UNAVAILABLE: no": 1}
    assert seen.epochs == {2: 2}
    assert seen.rungs == {("Backup", "e3"): 4}
    assert (seen.degraded_requests, seen.different) == (1, 1)
    assert (len(seen.bins), sum(seen.bins)) == (10, 2)
    assert seen.slowest_ms == pytest.approx(200.0)
    assert json.loads(json.dumps(seen.to_dict()))["rungs"] == {"Backup/e3": 4}
    assert any("4 rows of e3" in line for line in seen.lines())


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("checkpoint"), torch.bfloat16)


@pytest.fixture
def router(checkpoint: Path) -> Iterator[FakeRouter]:
    with in_a_thread(serving(checkpoint)) as fake:
        yield fake


@pytest.fixture(scope="module")
def recording(checkpoint: Path) -> Recording:
    return record(load_tiny(checkpoint), [some_tokens(1, 6 + n)[0] for n in range(3)])


def test_a_recording_outlives_its_file(recording: Recording, tmp_path: Path) -> None:
    recording.save(tmp_path / "requests.safetensors")
    again = load_recording(tmp_path / "requests.safetensors")
    assert [text.rows for text in again.texts] == [6, 7, 8]
    for old, new in zip(recording.texts, again.texts, strict=True):
        for one, other in zip(old.layers, new.layers, strict=True):
            assert one.layer == other.layer
            assert one.expected is not None
            assert other.expected is not None
            for what in ("hidden", "expert_index", "expert_weights", "expected"):
                np.testing.assert_array_equal(
                    getattr(one, what).view(np.uint8), getattr(other, what).view(np.uint8)
                )


def test_recording_leaves_the_model_as_it_was(checkpoint: Path) -> None:
    model = load_tiny(checkpoint)
    before = logits(model, some_tokens())
    record(model, [some_tokens()[0]])
    assert torch.equal(logits(model, some_tokens()), before)
    assert model.get_experts_implementation()[""] == "grouped_mm"


def wait_for(load_: SteadyLoad, requests: int) -> None:
    while load_.requests < requests:
        time.sleep(0.01)


def test_recorded_requests_get_the_recorded_bits(router: FakeRouter, recording: Recording) -> None:
    with SteadyLoad(router.address, recording, sessions=3, rows=2) as running:
        wait_for(running, 100)
    seen = running.report()
    assert seen.requests == running.requests >= 100
    assert (seen.failed, seen.different) == (0, 0)
    assert seen.epochs == {7: seen.requests}
    assert sum(seen.bins) == seen.requests
    running.stop()


def test_failures_are_counted_with_their_sentence(router: FakeRouter) -> None:
    router.script = [refuse(grpc.StatusCode.INVALID_ARGUMENT, "a sentence")] * 3
    with SteadyLoad(router.address, sessions=2) as running:
        wait_for(running, 20)
        seen = running.report()
    assert seen.failed == 3
    assert seen.failures == {"INVALID_ARGUMENT: a sentence (epoch 7)": 3}


def on_gates(router: FakeRouter, pin: Callable[[str, str], str]) -> None:
    """Put sessions on these artifacts, and refuse rows that another gate chose."""
    (gate,) = router.description.gates
    router.gate_seen = pin
    answer = refuse(grpc.StatusCode.FAILED_PRECONDITION, "the session is on another gate")

    async def act(exchange: Exchange) -> None:
        request = exchange.request
        (sequence,) = request.sequences
        own = pin(sequence.session, gate.sha256) == gate.sha256
        await (echo if own else answer)(exchange)

    router.otherwise = act


def test_sessions_on_another_gate_are_passed_over_and_counted(
    router: FakeRouter, recording: Recording
) -> None:
    on_gates(router, lambda session, stable: "f" * 64 if session < "8" else stable)
    with SteadyLoad(router.address, recording, sessions=3, rows=8) as running:
        wait_for(running, 100)
        seen = running.report()
    assert seen.failed == 0
    assert seen.passed_over > 0
    assert {request.sequences[0].session[0] for request in router.requests} <= {*"89abcdef"}
    assert f"passed over     {seen.passed_over} sessions on another gate" in seen.lines()


def test_load_that_could_ask_nothing_says_so(
    router: FakeRouter, capsys: pytest.CaptureFixture[str]
) -> None:
    on_gates(router, lambda session, stable: "f" * 64)
    assert load.main(["--address", router.address, "--seconds", "1"]) == 1
    said = capsys.readouterr().out
    assert "requests        0 in" in said
    assert "passed over" in said


def test_a_session_that_loses_its_gate_in_the_middle_fails_nothing(
    router: FakeRouter, recording: Recording
) -> None:
    def pin(session: str, stable: str) -> str:
        """Take the first session's gate from it once it has asked for rows."""
        begun = router.requests[:1] and router.requests[0].sequences[0].session
        return "f" * 64 if session == begun else stable

    on_gates(router, pin)
    with SteadyLoad(router.address, recording, sessions=1) as running:
        wait_for(running, 100)
        seen = running.report()
    assert (seen.failed, seen.passed_over) == (0, 1)
    assert len({request.sequences[0].session for request in router.requests}) > 1


def test_a_refusal_that_no_gate_explains_is_a_failure(router: FakeRouter) -> None:
    router.script = [refuse(grpc.StatusCode.FAILED_PRECONDITION, "another trunk")]
    with SteadyLoad(router.address) as running:
        wait_for(running, 10)
        seen = running.report()
    assert seen.failures == {"FAILED_PRECONDITION: another trunk (epoch 7)": 1}
    assert seen.passed_over == 0


def test_the_command(
    router: FakeRouter, recording: Recording, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "requests.safetensors"
    recording.save(path)
    flags = ["--address", router.address, "--seconds", "0.3", "--recording", str(path)]
    assert load.main(flags) == 0
    assert "failed          0" in capsys.readouterr().out
    flags[3] = "2"  # long enough for the first request to come back on a busy machine
    assert load.main([*flags, "--rows", "3", "--requests-per-s", "20", "-o", "json"]) == 0
    seen = json.loads(capsys.readouterr().out)
    assert seen["failed"] == seen["different"] == 0
    assert 0 < seen["requests"] <= 60
    # Not one refusal alone: a request that the last load left under way might be given it.
    router.otherwise = refuse(grpc.StatusCode.NOT_FOUND, "no")
    assert load.main(flags) == 1


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ([], "--address"),
        (["--address", "a:1", "--seconds", "0"], "is 0; it must be more than 0"),
        (["--address", "a:1", "--sessions", "0"], "is 0; it must be 1 or more"),
        (["--address", "a:1", "--rows", "x"], "invalid"),
        (["--address", "a:1", "--recording", "/nowhere"], "/nowhere cannot be read"),
    ],
)
def test_flags_that_make_no_sense(
    flags: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        load.main(flags)
    assert ended.value.code == 2
    assert sentence in capsys.readouterr().err


def test_nobody_to_load(capsys: pytest.CaptureFixture[str]) -> None:
    assert load.main(["--address", "127.0.0.1:9", "--timeout-s", "0.2"]) == 1
    assert "127.0.0.1:9" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda n: n.name)
def test_who_ends_the_load_gets_the_report(router: FakeRouter, number: signal.Signals) -> None:
    flags = ["--address", router.address, "--seconds", "600"]
    command = [sys.executable, "-m", "moe_client.load", *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        until = time.monotonic() + 60
        while not (router.requests and listens(running.pid)):
            assert time.monotonic() < until, "it does not begin"
            time.sleep(0.05)
        running.send_signal(number)
        said, _ = running.communicate()
    assert running.returncode == 0
    assert "failed          0" in said


def listens(pid: int) -> bool:
    """Say whether a process has a handler for SIGTERM."""
    status = Path("/proc", str(pid), "status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


def test_load_needs_no_torch() -> None:
    code = "import sys, moe_client.load; print({'torch', 'transformers'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
