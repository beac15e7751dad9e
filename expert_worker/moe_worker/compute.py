"""The computing thread: takes attempts, batches their rows, computes, judges and answers.

It alone runs experts. Where rows of several attempts wait for the same expert's layer they are
computed together; each gets back its own rows and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from moe_core.kernel import ExpertKernel
from moe_core.log import Log
from moe_worker.attempt import Attempt, Group
from moe_worker.backlog import Backlog
from moe_worker.batch import Line, Piece
from moe_worker.counters import Counters
from moe_worker.device import fetched
from moe_worker.failure import Code, fail


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """A group and the attempt that it belongs to."""

    attempt: Attempt
    group: Group


_Piece = Piece[ExpertKernel, _Part]


@dataclass(slots=True)
class Computer:
    """Works a backlog off. `clock_us` gives microseconds that only rise.

    Attempts of a trace are given to `traced` once they are answered, with the time.
    """

    backlog: Backlog
    counters: Counters
    batch_rows: int
    log: Log
    clock_us: Callable[[], int]
    traced: Callable[[Attempt, int], None] = lambda attempt, now_us: None
    _line: Line[ExpertKernel, _Part] = field(init=False)
    _open: set[Attempt] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._line = Line(self.batch_rows)

    def run(self) -> None:
        """Work until the backlog ends; the body of the computing thread."""
        while (arrived := self.backlog.take(wait=not self._line)) is not None:
            for attempt in arrived:
                self._open.add(attempt)
                for group in attempt.groups:
                    self._line.arrive(group.kernel, _Part(attempt, group), group.rows)
            self._step()

    def _step(self) -> None:
        """Compute one batch."""
        self._drop_unwanted(self.clock_us())
        if batch := self._line.next_batch():
            self._compute(batch)

    def _drop_unwanted(self, now_us: int) -> None:
        """Answer attempts that are too late, forget those whose link is gone."""
        over = [a for a in self._open if a.asker.closed or a.expired(now_us)]
        if not over:
            return
        for attempt in over:
            late_ms = (now_us - attempt.received_us) // 1000
            sentence = f"the attempt's deadline passed; it was here for {late_ms} ms"
            failure = fail(Code.DEADLINE_EXCEEDED, sentence)
            for group in attempt.groups:
                group.failure = failure
            self._answer(attempt)
        gone = set(over)
        self._line.keep(lambda part: part.attempt not in gone)

    def _compute(self, batch: list[_Piece]) -> None:
        now_us = self.clock_us()
        attempts = {piece.owner.attempt: None for piece in batch}
        for attempt in attempts:
            if attempt.began_us is None:
                attempt.began_us = now_us
        self.counters.began()
        rows = sum(piece.rows for piece in batch)
        try:
            outcome = run(batch[0].key, [_rows_of(piece) for piece in batch])
        except torch.AcceleratorError:  # nothing computes on this device any more: begin anew
            raise
        except Exception as error:  # one expert's trouble must not end all the others
            sentence = f"the expert could not compute: {type(error).__name__}: {error}"
            self.log("computing_failed", reason=sentence, rows=rows)
            for piece in batch:
                piece.owner.group.failure = fail(Code.INTERNAL, sentence)
                piece.owner.attempt.left -= piece.rows
        else:
            _deal(batch, outcome)
        spent = self.counters.computed(rows, len(attempts), batch[0].owner.group.slot)
        for piece in batch:
            if piece.owner.attempt.trace_id:
                piece.owner.group.worked(now_us, spent)
        for attempt in attempts:
            attempt.compute_us += spent
            if attempt.left == 0:
                self._answer(attempt)

    def _answer(self, attempt: Attempt) -> None:
        self._open.discard(attempt)
        frame, body = attempt.result(self.clock_us())
        result = frame.result
        codes = [g.failure.code for g in result.groups if g.HasField("failure")]
        self.counters.answered(codes, (result.queue_us, result.compute_us))
        attempt.asker.answer(frame, body)
        self.backlog.release(attempt.body.shape[0])
        if attempt.trace_id:
            self.traced(attempt, self.clock_us())


@dataclass(frozen=True, slots=True)
class Outcome:
    """Answers (T, H) of a batch in main memory, for each its norm and whether it went wrong."""

    answers: torch.Tensor
    norms: list[float]
    wrong: list[bool]


def run(kernel: ExpertKernel, inputs: Sequence[torch.Tensor]) -> Outcome:
    """Compute rows of one or more attempts, each (T, H) in main memory, as one batch."""
    there = [rows.to(kernel.device, non_blocking=True) for rows in inputs]
    rows = there[0] if len(there) == 1 else torch.cat(there)
    answers = kernel(rows)
    norms, wrong = inspect(rows, answers)
    return Outcome(fetched(answers), norms, wrong)


def _deal(batch: list[_Piece], outcome: Outcome) -> None:
    """Give each piece its own answers."""
    start = 0
    for piece in batch:
        end = start + piece.rows
        group = piece.owner.group
        group.norm_sum += sum(outcome.norms[start:end])
        group.nonfinite_rows += sum(outcome.wrong[start:end])
        piece.owner.attempt.store(group, piece.start, outcome.answers[start:end])
        start = end


def _rows_of(piece: _Piece) -> torch.Tensor:
    first = piece.owner.group.first + piece.start
    return piece.owner.attempt.body[first : first + piece.rows]


def inspect(rows: torch.Tensor, answers: torch.Tensor) -> tuple[list[float], list[bool]]:
    """Return each answer's L2 norm (0 where it is not finite), and whether it went wrong.

    An answer went wrong if it is not finite although the row that came in was. Both are (T, H).
    """
    norms = torch.linalg.vector_norm(answers, dim=1, dtype=torch.float32)
    if math.isfinite(norms.sum().item()):
        return norms.tolist(), [False] * rows.shape[0]
    finite = answers.isfinite().all(dim=1)
    wrong = rows.isfinite().all(dim=1) & ~finite
    exact_norms = torch.linalg.vector_norm(answers, dim=1, dtype=torch.float64)
    return exact_norms.where(finite, 0.0).tolist(), wrong.tolist()
