"""Decides what becomes of each group of a Compute message before its body is read.

Pure but for the lookup of kernels it is given. It refuses with a sentence that names the field, the
value and what would be right; it never looks at rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from moe_core.dtypes import ElementType
from moe_core.kernel import ExpertKernel
from moe_worker.attempt import Group
from moe_worker.failure import Code, fail
from moeops.v1.link_pb2 import Compute
from moeops.v1.types_pb2 import Dtype, Failure

Find = Callable[[str, int], ExpertKernel | None]
MAX_GROUPS = 4096


@dataclass(frozen=True, slots=True)
class Admitted:
    """What each group of a message became, and the rows that its body holds."""

    asked: tuple[Group | Failure, ...]
    rows: int

    @property
    def wanted(self) -> bool:
        """Whether there is anything to compute."""
        return any(isinstance(group, Group) for group in self.asked)


@dataclass(frozen=True, slots=True)
class Gatekeeper:
    """Admits what this worker can compute."""

    hidden_size: int
    dtype: ElementType
    max_rows: int
    find: Find

    def admit(self, compute: Compute, body_bytes: int) -> Admitted:
        """Return a Group or a Failure for each group asked."""
        rows = sum(group.rows for group in compute.groups)
        failure = self._refuse(compute, rows, body_bytes)
        if failure is not None:
            return Admitted((failure,) * len(compute.groups), rows)
        asked: list[Group | Failure] = []
        first = out = 0
        for group in compute.groups:
            kernel = self.find(group.sha256, compute.layer)
            if kernel is None:
                asked.append(_not_found(group.sha256, compute.layer))
            elif group.rows == 0:
                asked.append(_invalid("groups.rows is 0; it must be 1 or more"))
            else:
                slot = group.sha256, compute.layer
                asked.append(Group(kernel, first, out, group.rows, slot, span_id=group.span_id))
                out += group.rows
            first += group.rows
        return Admitted(tuple(asked), rows)

    def _refuse(self, compute: Compute, rows: int, body_bytes: int) -> Failure | None:
        """Object to the message as a whole, or return None."""
        if len(compute.groups) > MAX_GROUPS:
            return _invalid(f"groups are {len(compute.groups)}; at most {MAX_GROUPS} are possible")
        if compute.dtype != self.dtype.wire:
            # A number from a newer protocol has no name here.
            known = compute.dtype in Dtype.values()
            seen = Dtype.Name(compute.dtype) if known else str(compute.dtype)
            right = Dtype.Name(self.dtype.wire)
            return _invalid(f"dtype is {seen}; this worker serves {right}")
        if compute.hidden_size != self.hidden_size:
            return _invalid(
                f"hidden_size is {compute.hidden_size}; this worker's is {self.hidden_size}"
            )
        if rows > self.max_rows:
            return _invalid(f"rows are {rows}; one message may have at most {self.max_rows}")
        right_bytes = rows * self.hidden_size * self.dtype.bytes
        if body_bytes != right_bytes:
            return _invalid(
                f"body has {body_bytes} bytes; {rows} rows of {self.hidden_size} "
                f"{self.dtype.name} are {right_bytes}"
            )
        return None


def _invalid(sentence: str) -> Failure:
    return fail(Code.INVALID_ARGUMENT, sentence)


def _not_found(sha256: str, layer: int) -> Failure:
    return fail(
        Code.NOT_FOUND,
        f"groups.sha256 {sha256!r:.80} is not served here for layer {layer}; "
        "the inventory says what is",
    )
