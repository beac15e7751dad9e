"""Reads requests once, at the edge: afterwards there are only arrays that fit the table.

Every field is checked against the table that will serve the request; what is wrong is refused with
a sentence that names the field, its value and what would be right.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from moe_core import dtypes
from moe_core.table import GateRow, Version
from moe_router.gate import Choice, TopK, logits
from moe_router.refusal import Code, Refused
from moe_router.sessions import Start, read_token
from moe_router.view import View
from moeops.v1.router_pb2 import DispatchRequest, ForcedVersion, RouteRequest, SequenceRows

Array = npt.NDArray[Any]

ReadToken = Callable[[bytes, str, str], Start]  # as `sessions.read_token`

MAX_DEADLINE_MS = 600_000
MAX_FORCED = 64
EMPTY = -1  # in place of an expert: the gate chose nobody for this slot


@dataclass(frozen=True, slots=True)
class Sequence:
    """The rows `first` … `last` (excluded) of one session; `start` is None in its first request.

    `token` is what `start` was read from; `forced` are the versions, by expert id, that must
    answer whatever the session's pins say.
    """

    session: str
    start: Start | None
    first: int
    last: int
    token: bytes = b""
    forced: Mapping[str, Version] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rows:
    """What both kinds of request have in common: rows of one layer, by session."""

    layer: int
    gate: GateRow
    hidden: Array  # (T, H)
    sequences: tuple[Sequence, ...]
    deadline_ms: int  # 0 where the client gave none


@dataclass(frozen=True, slots=True)
class Request:
    """Rows and the experts chosen for them.

    An `EMPTY` slot, of weight 0, is not sent anywhere and degrades nothing: the gate itself chose
    fewer experts for that row.
    """

    rows: Rows
    experts: npt.NDArray[np.int32]  # (T, k) rows of the gate's expert list
    weights: Array  # (T, k), finite and not negative


def _invalid(message: str) -> Refused:
    return Refused(Code.INVALID_ARGUMENT, message)


def parse_dispatch(message: DispatchRequest, view: View, read: ReadToken = read_token) -> Request:
    """Read a request whose caller has applied the gate. Raises Refused."""
    rows = _parse_rows(message, view, read)
    gate, served = rows.gate, rows.gate.stable
    if message.gate_sha256 != served.sha256:
        raise Refused(
            Code.FAILED_PRECONDITION,
            f"gate_sha256 is {message.gate_sha256!r}; layer {rows.layer} is served with gate "
            f"{gate.name!r} version {served.version!r}, which is {served.sha256}",
        )
    if message.top_k != served.top_k:
        text = f"gate {gate.name!r} chooses {served.top_k} experts"
        raise _invalid(f"top_k is {message.top_k}; {text}")
    shape, known = (len(rows.hidden), served.top_k), len(served.experts)
    experts = _array("expert_index", message.expert_index, np.dtype(np.int32), shape)
    wrong = (experts < 0) | (experts >= known)
    if wrong.any():
        row, slot = np.argwhere(wrong)[0]
        raise _invalid(
            f"expert_index[{row}, {slot}] is {experts[row, slot]}; gate {gate.name!r} knows "
            f"{known} experts, so it must be from 0 to {known - 1}"
        )
    weights = _array("expert_weights", message.expert_weights, _weights_dtype(message), shape)
    wide = weights.astype(np.float32)
    wrong = ~(np.isfinite(wide) & (wide >= 0))
    if wrong.any():
        row, slot = np.argwhere(wrong)[0]
        value = wide[row, slot]
        raise _invalid(f"expert_weights[{row}, {slot}] is {value}; it must be finite, zero or more")
    return Request(rows, experts, weights)


def parse_route(message: RouteRequest, view: View, read: ReadToken = read_token) -> Rows:
    """Read a request to which the gate is still to be applied. Raises Refused."""
    return _parse_rows(message, view, read)


def choose(rows: Rows, weight: Array) -> Request:
    """Apply the gate of the rows' layer, whose weight is (E, H). Raises Refused."""
    expected = (len(rows.gate.stable.experts), rows.hidden.shape[1])
    if weight.shape != expected:
        raise Refused(
            Code.FAILED_PRECONDITION,
            f"gate {rows.gate.name!r} has a weight of shape {weight.shape} for layer {rows.layer}; "
            f"the table wants (experts, hiddenSize) = {expected}",
        )
    choice: Choice = TopK(rows.gate.stable.top_k).choose(logits(rows.hidden, weight))
    return Request(rows, choice.experts, choice.weights)


def _parse_rows(message: DispatchRequest | RouteRequest, view: View, read: ReadToken) -> Rows:
    table = view.table
    if message.request_id == 0:
        raise _invalid("request_id is 0; it must be any other number")
    check_mixture(message.mixture, view)
    if message.trunk_sha256 and table.trunk_sha256 and message.trunk_sha256 != table.trunk_sha256:
        raise Refused(
            Code.FAILED_PRECONDITION,
            f"trunk_sha256 is {message.trunk_sha256!r}; the experts belong to the trunk "
            f"{table.trunk_sha256}",
        )
    gate = _gate(message.layer, view)
    if message.hidden_size != table.hidden_size:
        raise _invalid(f"hidden_size is {message.hidden_size}; it must be {table.hidden_size}")
    if message.deadline_ms > MAX_DEADLINE_MS:
        raise _invalid(f"deadline_ms is {message.deadline_ms}; at most {MAX_DEADLINE_MS}")
    sequences = _sequences(message.sequences, view, read)
    shape = (sequences[-1].last, table.hidden_size)
    hidden = _array("hidden", message.hidden, _hidden_dtype(message, view), shape)
    return Rows(message.layer, gate, hidden, sequences, message.deadline_ms)


def _gate(layer: int, view: View) -> GateRow:
    if layer >= view.table.layers:
        last = view.table.layers - 1
        raise Refused(
            Code.NOT_FOUND, f"layer is {layer}; mixture {view.table.mixture!r} has 0 to {last}"
        )
    gate = view.gates.get(layer)
    if gate is None:
        raise Refused(
            Code.NOT_FOUND, f"layer {layer} of mixture {view.table.mixture!r} has no gate yet"
        )
    return gate


def _hidden_dtype(message: DispatchRequest | RouteRequest, view: View) -> np.dtype[Any]:
    served = dtypes.by_name(view.table.dtype)
    if message.dtype != served.wire:
        raise _invalid(
            f"dtype is {message.dtype}; the mixture's is {served.name} ({int(served.wire)})"
        )
    return served.numpy


def _weights_dtype(message: DispatchRequest) -> np.dtype[Any]:
    try:
        return dtypes.by_wire(message.weights_dtype).numpy
    except dtypes.UnknownDtype as error:
        raise _invalid(f"weights_{error}") from None


def _sequences(
    messages: Iterable[SequenceRows], view: View, read: ReadToken
) -> tuple[Sequence, ...]:
    sequences: list[Sequence] = []
    first = 0
    for index, message in enumerate(messages):
        name = f"sequences[{index}]"
        check_session(message.session, name)
        if message.rows == 0:
            raise _invalid(f"{name}.rows is 0; it must be 1 or more")
        token, session = message.start_token, message.session
        start = read(token, session, f"{name}.start_token") if token else None
        forced = _forced(message.forced, view, name) if message.forced else {}
        sequences.append(Sequence(session, start, first, first + message.rows, token, forced))
        first += message.rows
    if not sequences:
        raise _invalid("sequences is empty; it must name the session of every row")
    return tuple(sequences)


def check_mixture(mixture: str, view: View) -> None:
    """Raise Refused unless a message is for the mixture that is served."""
    served = view.table.mixture
    if mixture != served:
        text = f"mixture is {mixture!r}; this router serves {served!r}"
        raise Refused(Code.FAILED_PRECONDITION, text)


def check_session(session: str, name: str) -> None:
    """Raise Refused unless it is the name of a session; `name` is what holds it."""
    size = len(session.encode())
    if not 1 <= size <= 128:
        raise _invalid(f"{name}.session has {size} bytes; it must have 1 to 128")


def _forced(messages: Collection[ForcedVersion], view: View, name: str) -> dict[str, Version]:
    if len(messages) > MAX_FORCED:
        raise _invalid(f"{name}.forced has {len(messages)} versions; at most {MAX_FORCED}")
    found: dict[str, Version] = {}
    for index, message in enumerate(messages):
        expert_id, where = message.expert_id, f"{name}.forced[{index}]"
        if expert_id in found:
            raise _invalid(f"{where}.expert_id is {expert_id!r} once more; each may be named once")
        found[expert_id] = _forced_version(message, view, where)
    return found


def _forced_version(message: ForcedVersion, view: View, where: str) -> Version:
    row = view.experts.get(message.expert_id)
    if row is None:
        mixture = view.table.mixture
        text = f"it must be an expert of mixture {mixture!r}"
        raise _invalid(f"{where}.expert_id is {message.expert_id!r}; {text}")
    if message.sha256 in row.revoked:
        text = f"{where}.sha256 is {message.sha256}, a version of expert {row.expert_id!r} that"
        raise Refused(Code.FAILED_PRECONDITION, f"{text} was taken back and gets no rows any more")
    version = next((v for v in row.named if v.sha256 == message.sha256), None)
    if version is None:
        named = ", ".join(v.sha256 for v in row.named) or "none yet"
        text = f"the table names for expert {row.expert_id!r}: {named}"
        raise _invalid(f"{where}.sha256 is {message.sha256!r}; {text}")
    return version


def _array(name: str, data: bytes, dtype: np.dtype[Any], shape: tuple[int, int]) -> Array:
    wanted = shape[0] * shape[1] * dtype.itemsize
    if len(data) != wanted:
        raise _invalid(
            f"{name} has {len(data)} bytes; {shape[0]} x {shape[1]} of {dtype.name} are {wanted}"
        )
    return np.frombuffer(data, dtype).reshape(shape)
