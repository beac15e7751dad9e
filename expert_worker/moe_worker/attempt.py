"""One Compute message under way: its groups, where their answers go, and the Result made of them.

Made by a link's reading thread, handed once to the computing thread, which alone touches it after.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import torch

from moe_core.kernel import ExpertKernel
from moe_worker.shelf import Slot
from moeops.v1.link_pb2 import GroupResult, LinkFrame
from moeops.v1.types_pb2 import Failure


class Asker(Protocol):
    """Who asked, and takes the answer."""

    @property
    def closed(self) -> bool:
        """Whether nobody listens any more."""
        ...

    def answer(self, frame: LinkFrame, body: torch.Tensor | None) -> None:
        """Send a Result; never waits for a slow reader. `body` is not written to afterwards."""
        ...


@dataclass(slots=True, eq=False)
class Group:
    """Rows for one expert's layer: `rows` from `first` on in the body, `out` on in the answer."""

    kernel: ExpertKernel
    first: int
    out: int
    rows: int
    slot: Slot = ("", 0)
    nonfinite_rows: int = 0
    norm_sum: float = 0.0
    failure: Failure | None = None
    span_id: int = 0
    began_us: int | None = None
    compute_us: int = 0

    def worked(self, began_us: int, spent_us: int) -> None:
        """Note a batch with rows of it; of interest where the attempt is traced."""
        self.began_us = began_us if self.began_us is None else self.began_us
        self.compute_us += spent_us


@dataclass(slots=True, eq=False)
class Attempt:
    """A Compute message with at least one group to compute. Times are microseconds of one clock.

    `asked` has an entry per group of the message, in order: a Group, or why it failed at once.
    `trace_id` is 0 where it is not traced; only then its groups know how they fared.
    """

    number: int
    asker: Asker
    asked: tuple[Group | Failure, ...]
    body: torch.Tensor  # (rows, H)
    received_us: int
    deadline_us: int | None
    began_us: int | None = None
    compute_us: int = 0
    trace_id: int = 0
    left: int = field(init=False)
    answers: torch.Tensor | None = None

    def __post_init__(self) -> None:
        self.left = sum(group.rows for group in self.groups)

    @property
    def groups(self) -> list[Group]:
        return [group for group in self.asked if isinstance(group, Group)]

    def expired(self, now_us: int) -> bool:
        return self.deadline_us is not None and now_us >= self.deadline_us

    def store(self, group: Group, start: int, answers: torch.Tensor) -> None:
        """Put the answers of a group's rows from `start` on in their place."""
        rows = answers.shape[0]
        total = sum(g.rows for g in self.groups)
        if rows == total:
            self.answers = answers
        else:
            if self.answers is None:
                self.answers = torch.empty((total, answers.shape[1]), dtype=answers.dtype)
            self.answers[group.out + start : group.out + start + rows] = answers
        self.left -= rows

    def result(self, now_us: int) -> tuple[LinkFrame, torch.Tensor | None]:
        """Return the Result and its body: rows of the groups without failure, in order."""
        began = now_us if self.began_us is None else self.began_us
        frame = result_frame(self.number, self.asked)
        frame.result.queue_us = began - self.received_us
        frame.result.compute_us = self.compute_us
        if self.answers is None or all(g.failure is not None for g in self.groups):
            return frame, None
        if any(g.failure is not None for g in self.groups):
            kept = [self.answers[g.out : g.out + g.rows] for g in self.groups if g.failure is None]
            return frame, torch.cat(kept)
        return frame, self.answers


def result_frame(attempt: int, asked: tuple[Group | Failure, ...]) -> LinkFrame:
    """Return the Result header of groups as they are now."""
    frame = LinkFrame()
    frame.result.attempt = attempt
    for group in asked:
        if isinstance(group, Failure):
            frame.result.groups.append(GroupResult(failure=group))
        elif group.failure is not None:
            frame.result.groups.append(GroupResult(failure=group.failure))
        else:
            frame.result.groups.append(
                GroupResult(nonfinite_rows=group.nonfinite_rows, norm_sum=group.norm_sum)
            )
    return frame
