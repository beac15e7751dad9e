"""Arrays to messages and back: what a caller asks and what it is told, without any I/O.

An answer is checked against its question here, so that nothing behind this module ever sees an
array of another shape than it asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from moe_client.errors import InvalidRequest, MalformedAnswer
from moe_core.dtypes import UnknownDtype, by_numpy
from moeops.v1 import router_pb2, types_pb2
from moeops.v1.router_pb2 import DispatchRequest, RouteRequest, RowsResponse

Array = NDArray[Any]
Message = DispatchRequest | RouteRequest
Make = Callable[[int, int], Message]
"""(request id, milliseconds left) to one message, a new one each time."""

MAX_SESSION_BYTES = 128


@dataclass(frozen=True, slots=True)
class Sequence:
    """The rows of one session within a question. `start_token` is what its first answer gave.

    `forced` are (expert, sha256): versions that must compute the rows, whatever the pins say.
    `gate_sha256` is the gate that chose for them, empty where it is that of the whole choice; with
    `gate_forced` it may be any that the table names.
    """

    session: str
    rows: int
    start_token: bytes = b""
    forced: tuple[tuple[str, str], ...] = ()
    gate_sha256: str = ""
    gate_forced: bool = False


@dataclass(frozen=True, slots=True)
class Rows:
    """Hidden states of one layer, the sequences' rows one after another."""

    layer: int
    hidden: Array  # (T, H)
    sequences: tuple[Sequence, ...]

    def __post_init__(self) -> None:
        if self.hidden.ndim != 2:
            shape = self.hidden.shape
            raise InvalidRequest(f"hidden has shape {shape}; it must be (rows, hidden size)")
        rows = sum(sequence.rows for sequence in self.sequences)
        if rows != len(self.hidden):
            given = len(self.hidden)
            raise InvalidRequest(f"the sequences have {rows} rows; hidden has {given}")
        for sequence in self.sequences:
            size = len(sequence.session.encode())
            if not 1 <= size <= MAX_SESSION_BYTES:
                raise InvalidRequest(
                    f"session {sequence.session!r} has {size} bytes; it must have 1 to "
                    f"{MAX_SESSION_BYTES}"
                )


@dataclass(frozen=True, slots=True)
class Choice:
    """What a gate chose: `expert_index` counts rows of that gate version's list of experts.

    Slots that it left empty have index -1 and weight 0.
    """

    gate_sha256: str
    expert_index: Array  # (T, k), int32
    expert_weights: Array  # (T, k)

    def __post_init__(self) -> None:
        if self.expert_index.dtype != np.int32:
            raise InvalidRequest(f"expert_index is {self.expert_index.dtype}; it must be int32")
        if self.expert_index.ndim != 2 or self.expert_index.shape != self.expert_weights.shape:
            raise InvalidRequest(
                f"expert_index has shape {self.expert_index.shape} and expert_weights "
                f"{self.expert_weights.shape}; both must be (rows, top-k)"
            )


@dataclass(frozen=True, slots=True)
class RungRows:
    """How many of a sequence's rows another rung answered for one expert."""

    rung: str
    expert_id: str
    rows: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What happened to one sequence: `degraded_ppm` is lost over all gate mass, in millionths."""

    start_token: bytes
    degraded_ppm: int
    degraded: bool
    repinned_experts: tuple[str, ...] = ()
    rungs: tuple[RungRows, ...] = ()
    repinned_gates: tuple[str, ...] = ()

    @classmethod
    def read(cls, message: router_pb2.SequenceOutcome) -> Self:
        rungs = tuple(
            RungRows(_rung_name(item.rung), item.expert_id, item.rows) for item in message.rungs
        )
        return cls(
            message.start_token,
            message.degraded_ppm,
            message.degraded,
            tuple(message.repinned_experts),
            rungs,
            tuple(message.repinned_gates),
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """The rows as answered, and what happened to each sequence, in the order asked."""

    hidden: Array  # (T, H), as asked
    outcomes: tuple[Outcome, ...]
    epoch: int
    router_us: int


def making_dispatch(
    mixture: str, trunk_sha256: str, rows: Rows, choice: Choice, traceparent: str = ""
) -> Make:
    """Return the maker of this request's messages. Raises InvalidRequest for a wrong dtype."""
    if len(choice.expert_index) != len(rows.hidden):
        raise InvalidRequest(
            f"expert_index has {len(choice.expert_index)} rows; hidden has {len(rows.hidden)}"
        )
    return _making(
        DispatchRequest,
        mixture=mixture,
        trunk_sha256=trunk_sha256,
        gate_sha256=choice.gate_sha256,
        layer=rows.layer,
        dtype=_wire_dtype(rows.hidden, "hidden"),
        hidden_size=rows.hidden.shape[1],
        top_k=choice.expert_index.shape[1],
        sequences=_sequences(rows),
        hidden=rows.hidden.tobytes(),
        expert_index=choice.expert_index.tobytes(),
        expert_weights=choice.expert_weights.tobytes(),
        weights_dtype=_wire_dtype(choice.expert_weights, "expert_weights"),
        traceparent=traceparent,
    )


def making_route(mixture: str, trunk_sha256: str, rows: Rows, traceparent: str = "") -> Make:
    """Return the maker of this request's messages. Raises InvalidRequest for a wrong dtype."""
    return _making(
        RouteRequest,
        mixture=mixture,
        trunk_sha256=trunk_sha256,
        layer=rows.layer,
        dtype=_wire_dtype(rows.hidden, "hidden"),
        hidden_size=rows.hidden.shape[1],
        sequences=_sequences(rows),
        hidden=rows.hidden.tobytes(),
        traceparent=traceparent,
    )


def read_answer(response: RowsResponse, rows: Rows) -> Answer:
    """Return the answer to `rows`. Raises MalformedAnswer where it does not fit them."""
    if len(response.hidden) != rows.hidden.nbytes:
        raise MalformedAnswer(
            f"the answer has {len(response.hidden)} bytes of hidden states; "
            f"{rows.hidden.shape} of {rows.hidden.dtype} are {rows.hidden.nbytes}",
            epoch=response.epoch,
        )
    if len(response.sequences) != len(rows.sequences):
        raise MalformedAnswer(
            f"the answer tells of {len(response.sequences)} sequences; "
            f"{len(rows.sequences)} were asked",
            epoch=response.epoch,
        )
    hidden = np.frombuffer(response.hidden, rows.hidden.dtype).reshape(rows.hidden.shape)
    outcomes = tuple(Outcome.read(item) for item in response.sequences)
    return Answer(hidden, outcomes, response.epoch, response.router_us)


def _sequences(rows: Rows) -> list[router_pb2.SequenceRows]:
    return [
        router_pb2.SequenceRows(
            session=s.session,
            start_token=s.start_token,
            rows=s.rows,
            forced=[router_pb2.ForcedVersion(expert_id=e, sha256=d) for e, d in s.forced],
            gate_sha256=s.gate_sha256,
            gate_forced=s.gate_forced,
        )
        for s in rows.sequences
    ]


def _wire_dtype(array: Array, name: str) -> types_pb2.Dtype.ValueType:
    try:
        return by_numpy(array.dtype).wire
    except UnknownDtype as error:
        raise InvalidRequest(f"{name}: {error}") from None


def _making(kind: type[Message], **fields: Any) -> Make:
    def make(request_id: int, deadline_ms: int) -> Message:
        return kind(request_id=request_id, deadline_ms=deadline_ms, **fields)

    return make


def _rung_name(number: int) -> str:
    known = router_pb2.Rung.DESCRIPTOR.values_by_number.get(number)
    return known.name.removeprefix("RUNG_").capitalize() if known else f"Rung{number}"
