"""The computing thread's work, step by step, without threads or sockets."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from moe_core.exactness import prove
from moe_core.kernel import ExpertKernel, Rule
from moe_worker.attempt import Attempt, Group
from moe_worker.backlog import Backlog
from moe_worker.compute import Computer, inspect
from moe_worker.counters import Counters
from moe_worker.failure import Code, fail
from moeops.v1.types_pb2 import Failure
from tests.fakes.asker import FakeAsker

HIDDEN, INTERMEDIATE = 16, 24
RULE = prove(torch.float32, HIDDEN, INTERMEDIATE)


def kernel(seed: int) -> ExpertKernel:
    draw = torch.Generator().manual_seed(seed)
    gate, up = (torch.randn(INTERMEDIATE, HIDDEN, generator=draw) for _ in range(2))
    return ExpertKernel(gate, up, torch.randn(HIDDEN, INTERMEDIATE, generator=draw), RULE)


ONE, OTHER = kernel(1), kernel(2)


class BrokenKernel(ExpertKernel):
    error: Exception = RuntimeError("no memory")

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        raise self.error


class OnALostDevice(BrokenKernel):
    error = torch.AcceleratorError("CUDA error: an illegal memory access was encountered")


def broken(kind: type[ExpertKernel] = BrokenKernel) -> ExpertKernel:
    gate = torch.zeros(INTERMEDIATE, HIDDEN)
    return kind(gate, gate, gate.T.contiguous(), RULE)


class Bench:
    """A computer with its backlog and a clock that it moves by hand."""

    def __init__(self, batch_rows: int = 64) -> None:
        self.now_us = 1_000_000
        self.backlog = Backlog(10_000)
        self.counters = Counters(lambda: self.now_us)
        self.lines: list[tuple[str, dict[str, Any]]] = []
        self.computer = Computer(
            self.backlog, self.counters, batch_rows, self._log, lambda: self.now_us
        )

    def _log(self, event: str, **fields: Any) -> None:
        self.lines.append((event, fields))

    def ask(
        self,
        asker: FakeAsker,
        number: int,
        *wanted: tuple[ExpertKernel, torch.Tensor] | Failure,
        deadline_us: int | None = None,
    ) -> None:
        asked: list[Group | Failure] = []
        bodies = []
        first = out = 0
        for item in wanted:
            if isinstance(item, Failure):
                asked.append(item)
                continue
            expert, rows = item
            asked.append(Group(expert, first, out, rows.shape[0]))
            first, out = first + rows.shape[0], out + rows.shape[0]
            bodies.append(rows)
        body = torch.cat(bodies)
        assert self.backlog.reserve(body.shape[0])
        self.backlog.put(Attempt(number, asker, tuple(asked), body, self.now_us, deadline_us))

    def run(self) -> None:
        """Compute all that waits."""
        self.computer.backlog = _Ending(self.backlog)
        self.computer.run()


class _Ending(Backlog):
    """Ends once nothing is left, where a worker's backlog would wait."""

    def __init__(self, inner: Backlog) -> None:
        super().__init__(0)
        self._inner = inner

    def take(self, *, wait: bool) -> list[Attempt] | None:
        return self._inner.take(wait=False) or (None if wait else [])

    def release(self, rows: int) -> None:
        self._inner.release(rows)


def rows(number: int, seed: int) -> torch.Tensor:
    return torch.randn(number, HIDDEN, generator=torch.Generator().manual_seed(seed))


def same(one: torch.Tensor | None, other: torch.Tensor) -> bool:
    return one is not None and torch.equal(one.view(torch.int32), other.view(torch.int32))


def test_rows_of_different_askers_share_a_batch_and_each_gets_its_own() -> None:
    bench, a, b = Bench(), FakeAsker(), FakeAsker()
    mine, yours = rows(3, 1), rows(5, 2)
    bench.ask(a, 1, (ONE, mine))
    bench.ask(b, 1, (ONE, yours))
    bench.run()
    assert same(a.rows[1], ONE(mine))
    assert same(b.rows[1], ONE(yours))
    seen = bench.counters.snapshot()
    assert (seen.batches, seen.mixed_batches, seen.rows, seen.attempts) == (1, 1, 8, 2)
    assert bench.backlog.rows == 0


def test_rows_of_one_asker_alone_are_no_mixed_batch() -> None:
    bench, asker = Bench(), FakeAsker()
    bench.ask(asker, 1, (ONE, rows(3, 1)), (ONE, rows(2, 2)))
    bench.run()
    assert bench.counters.snapshot().batches == 1
    assert bench.counters.snapshot().mixed_batches == 0


def test_experts_are_never_mixed_up() -> None:
    bench, asker = Bench(), FakeAsker()
    one, other = rows(4, 1), rows(6, 2)
    bench.ask(asker, 7, (OTHER, other), (ONE, one))
    bench.ask(asker, 8, (ONE, one), (OTHER, other))
    bench.run()
    assert same(asker.rows[7], torch.cat((OTHER(other), ONE(one))))
    assert same(asker.rows[8], torch.cat((ONE(one), OTHER(other))))
    assert bench.counters.snapshot().mixed_batches == 2


def test_a_giant_is_cut_and_put_together_again() -> None:
    bench, asker = Bench(batch_rows=7), FakeAsker()
    giant, small = rows(50, 1), rows(2, 2)
    bench.ask(asker, 1, (ONE, giant))
    bench.ask(asker, 2, (OTHER, small))
    bench.run()
    assert same(asker.rows[1], ONE(giant))
    assert list(asker.results) == [2, 1]
    assert bench.counters.snapshot().batches == 9


def test_groups_that_failed_before_have_no_rows_and_keep_their_place() -> None:
    bench, asker = Bench(), FakeAsker()
    missing = fail(Code.NOT_FOUND, "not here")
    bench.ask(asker, 1, (ONE, rows(2, 1)), missing, (OTHER, rows(3, 2)))
    bench.run()
    assert [g.failure.code for g in asker.results[1].groups] == [0, 5, 0]
    assert same(asker.rows[1], torch.cat((ONE(rows(2, 1)), OTHER(rows(3, 2)))))
    assert bench.counters.snapshot().failures == 1


def test_an_expert_that_cannot_compute_fails_its_own_groups_only() -> None:
    bench, asker = Bench(), FakeAsker()
    bench.ask(asker, 1, (broken(), rows(2, 1)), (ONE, rows(3, 2)))
    bench.run()
    first, second = asker.results[1].groups
    assert first.failure.code == Code.INTERNAL
    assert "no memory" in first.failure.message
    assert not second.HasField("failure")
    assert same(asker.rows[1], ONE(rows(3, 2)))
    assert [event for event, _ in bench.lines] == ["computing_failed"]
    assert bench.backlog.rows == 0


def test_a_device_that_is_lost_ends_the_computing_thread_and_so_the_worker() -> None:
    bench, asker = Bench(), FakeAsker()
    bench.ask(asker, 1, (broken(OnALostDevice), rows(2, 1)))
    with pytest.raises(torch.AcceleratorError, match="illegal memory access"):
        bench.run()


def test_what_is_too_late_is_not_computed() -> None:
    bench, asker = Bench(), FakeAsker()
    bench.ask(asker, 1, (ONE, rows(2, 1)), deadline_us=bench.now_us + 5000)
    bench.ask(asker, 2, (ONE, rows(2, 1)), deadline_us=bench.now_us + 5001)
    bench.now_us += 5000
    bench.run()
    late, in_time = asker.results[1].groups[0], asker.results[2].groups[0]
    assert late.failure.code == Code.DEADLINE_EXCEEDED
    assert late.failure.message == "the attempt's deadline passed; it was here for 5 ms"
    assert asker.rows[1] is None
    assert not in_time.HasField("failure")
    assert bench.counters.snapshot().rows == 2
    assert bench.backlog.rows == 0


def test_what_nobody_waits_for_is_not_computed() -> None:
    bench, gone = Bench(), FakeAsker(closed=True)
    bench.ask(gone, 1, (ONE, rows(2, 1)))
    bench.run()
    assert bench.counters.snapshot().rows == 0
    assert bench.backlog.rows == 0


def test_answers_are_judged_row_by_row() -> None:
    bench, asker = Bench(), FakeAsker()
    nan = ExpertKernel(
        torch.ones(INTERMEDIATE, HIDDEN),
        torch.ones(INTERMEDIATE, HIDDEN),
        torch.full((HIDDEN, INTERMEDIATE), float("nan")),
        Rule((4, 8, 16, 32), "test"),
    )
    poisoned = rows(3, 1)
    poisoned[1, 3] = float("nan")
    bench.ask(asker, 1, (nan, poisoned), (ONE, poisoned))
    bench.run()
    broken_group, sound_group = asker.results[1].groups
    assert (broken_group.nonfinite_rows, broken_group.norm_sum) == (2, 0.0)
    assert sound_group.nonfinite_rows == 0
    wanted = ONE(poisoned)[[0, 2]].norm(dim=1).sum().item()
    assert sound_group.norm_sum == pytest.approx(wanted)


def test_huge_answers_are_finite_where_their_squares_are_not() -> None:
    answers = torch.full((2, 4), 1e30)
    norms, wrong = inspect(torch.zeros(2, 4), answers)
    assert norms == pytest.approx([2e30, 2e30])
    assert wrong == [False, False]


def test_times_are_told() -> None:
    bench, asker = Bench(), FakeAsker()
    bench.ask(asker, 1, (ONE, rows(2, 1)))
    bench.now_us += 700
    bench.run()
    assert asker.results[1].queue_us == 700
    assert asker.results[1].compute_us == 0  # the clock stood still
    counted = bench.counters.snapshot()
    assert (counted.queued_attempts, counted.queue_us) == (1, 700)


def test_what_is_refused_at_once_is_no_attempt_that_waited() -> None:
    bench = Bench()
    bench.counters.answered([1])
    counted = bench.counters.snapshot()
    assert (counted.attempts, counted.queued_attempts, counted.queue_us) == (1, 0, 0)
