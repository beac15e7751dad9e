"""Takes Compute frames off a link: admitted, given room, read into a tensor, put in line.

What cannot be computed is answered at once, and its body read past.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from moe_core.frames import BadFrame
from moe_core.kernel import torch_dtype
from moe_worker.admission import Admitted, Gatekeeper
from moe_worker.attempt import Attempt, Group, result_frame
from moe_worker.backlog import Backlog
from moe_worker.counters import Counters
from moe_worker.device import pinned
from moe_worker.failure import Code, fail
from moe_worker.link import Link
from moe_worker.receive import Receiver
from moeops.v1.link_pb2 import Compute
from moeops.v1.types_pb2 import Failure

_CPU = torch.device("cpu")
_TRACE_BYTES = 16
_SHORTEST_RETRY_MS, _LONGEST_RETRY_MS = 5, 1000


@dataclass(slots=True)
class Intake:
    """`last_us` is when a router last asked for something; rows are computed on `device`."""

    gatekeeper: Gatekeeper
    backlog: Backlog
    counters: Counters
    clock_us: Callable[[], int]
    device: torch.device = _CPU
    last_us: int = 0

    def take(self, link: Link, receiver: Receiver, compute: Compute, body_bytes: int) -> None:
        """Take one message to where it belongs. Raises what the receiver does."""
        received_us = self.last_us = self.clock_us()
        if compute.attempt in link.under_way:
            raise BadFrame(f"attempt {compute.attempt} is under way already on this link")
        admitted = self.gatekeeper.admit(compute, body_bytes)
        if admitted.wanted and not self.backlog.reserve(admitted.rows):
            admitted = self._overloaded(admitted)
        if not admitted.wanted:
            receiver.skip(body_bytes)
            self._answer(link, compute.attempt, admitted)
            return
        try:
            body = self._read(receiver, body_bytes)
        except BaseException:
            self.backlog.release(admitted.rows)
            raise
        link.under_way.add(compute.attempt)
        deadline_us = received_us + 1000 * compute.deadline_ms if compute.deadline_ms else None
        attempt = Attempt(compute.attempt, link, admitted.asked, body, received_us, deadline_us)
        if compute.trace_id:
            attempt.trace_id = int.from_bytes(compute.trace_id[:_TRACE_BYTES])
        self.backlog.put(attempt)

    def _read(self, receiver: Receiver, body_bytes: int) -> torch.Tensor:
        """Read rows straight into the tensor that experts will see, (rows, H)."""
        fetched_by_itself = pinned(self.device, body_bytes)
        body = torch.empty(body_bytes, dtype=torch.uint8, pin_memory=fetched_by_itself)
        receiver.body(body.numpy().data)
        return body.view(torch_dtype(self.gatekeeper.dtype)).view(-1, self.gatekeeper.hidden_size)

    def _answer(self, link: Link, attempt: int, admitted: Admitted) -> None:
        self.counters.answered([f.code for f in admitted.asked if isinstance(f, Failure)])
        link.answer(result_frame(attempt, admitted.asked), None)

    def _overloaded(self, admitted: Admitted) -> Admitted:
        """Turn the groups that could be computed into failures that say when to come back."""
        waiting = self.backlog.rows
        most = self.gatekeeper.max_rows
        sentence = f"{waiting} rows wait here already; at most {most} may"
        failure = fail(Code.RESOURCE_EXHAUSTED, sentence, self._retry_ms(waiting))
        asked: tuple[Group | Failure, ...] = tuple(
            failure if isinstance(group, Group) else group for group in admitted.asked
        )
        return Admitted(asked, admitted.rows)

    def _retry_ms(self, rows: int) -> int:
        """Estimate when half of what waits is done, from what rows have cost so far."""
        done = self.counters.snapshot()
        row_us = done.busy_us / done.rows if done.rows else 0.0
        return min(max(int(rows * row_us / 2000), _SHORTEST_RETRY_MS), _LONGEST_RETRY_MS)
