"""Reads requests once, at the edge: afterwards there are only arrays that fit the table.

Every field is checked against the table that will serve the request; what is wrong is refused with
a sentence that names the field, its value and what would be right.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from moe_core import dtypes
from moe_core.rows import GateRow, GateVariant
from moe_router.demands import check_dispatch, check_route
from moe_router.refusal import Code, Refused
from moe_router.sequences import GateReader, PinsOf, ReadToken, Sequence, read_sequences
from moe_router.sessions import pins_of, read_token
from moe_router.variants import EMPTY, one_list
from moe_router.view import View
from moeops.v1.router_pb2 import DispatchRequest, RouteRequest

Array = npt.NDArray[Any]

Indexes = npt.NDArray[np.int32]

MAX_DEADLINE_MS = 600_000


@dataclass(frozen=True, slots=True)
class Rows:
    """What both kinds of request have in common: rows of one layer, by session.

    `variants` are those of the layer's gate that sequences use, each once.
    """

    layer: int
    gate: GateRow
    hidden: Array  # (T, H)
    sequences: tuple[Sequence, ...]
    variants: tuple[GateVariant, ...]
    deadline_ms: int  # 0 where the client gave none

    def numbers(self) -> npt.NDArray[np.intp]:
        """Return which of the variants each row's is, (T,)."""
        places = {variant.sha256: number for number, variant in enumerate(self.variants)}
        numbers = [places[sequence.gate.sha256] for sequence in self.sequences]
        return np.repeat(np.array(numbers, np.intp), [s.last - s.first for s in self.sequences])


@dataclass(frozen=True, slots=True)
class Request:
    """Rows and the experts chosen for them.

    An `EMPTY` slot, of weight 0, is not sent anywhere and degrades nothing: the gate itself chose
    fewer experts for that row. `chosen` is what the gate chose, before any capacity, as each row's
    own variant counts experts. `entropy` is that of the gate's probabilities where this router
    applied it.
    """

    rows: Rows
    names: tuple[str, ...]
    experts: Indexes  # (T, k) rows of `names`
    weights: Array  # (T, k), finite and not negative
    chosen: Indexes  # (T, slots) rows of the expert list of the row's variant
    entropy: Array | None = None  # (T,) in bits

    @classmethod
    def of(
        cls,
        rows: Rows,
        kept: Indexes,
        weights: Array,
        entropy: Array | None = None,
        chosen: Indexes | None = None,
    ) -> Request:
        """Put choices that are by each variant's own list into one list.

        `kept` is what capacity left of `chosen`; all of it where that is None.
        """
        chosen = kept if chosen is None else chosen
        if len(rows.variants) == 1:
            return cls(rows, rows.variants[0].experts, kept, weights, chosen, entropy)
        names, places = one_list(rows.variants)
        experts = places[rows.numbers()[:, None], kept]
        return cls(rows, names, experts, weights, chosen, entropy)


def _invalid(message: str) -> Refused:
    return Refused(Code.INVALID_ARGUMENT, message)


def parse_dispatch(
    message: DispatchRequest, view: View, read: ReadToken = read_token, pins: PinsOf = pins_of
) -> Request:
    """Read a request whose caller has applied the gate. Raises Refused."""
    rows = _parse_rows(message, view, read, pins, message.gate_sha256)
    check_dispatch(rows.gate, rows.variants, rows.sequences)
    width = max(variant.top_k for variant in rows.variants)
    if message.top_k != width:
        text = f"gate {rows.gate.name!r} chooses {width} experts"
        raise _invalid(f"top_k is {message.top_k}; {text}")
    shape = (len(rows.hidden), width)
    chosen = _array("expert_index", message.expert_index, np.dtype(np.int32), shape)
    weights = _array("expert_weights", message.expert_weights, _weights_dtype(message), shape)
    _check_chosen(chosen, rows)
    wide = weights.astype(np.float32)
    wrong = ~(np.isfinite(wide) & (wide >= 0))
    if wrong.any():
        row, slot = np.argwhere(wrong)[0]
        value = wide[row, slot]
        raise _invalid(f"expert_weights[{row}, {slot}] is {value}; it must be finite, zero or more")
    if len(rows.variants) > 1:
        _check_empty(chosen, wide)
    return Request.of(rows, chosen, weights)


def _check_chosen(chosen: Indexes, rows: Rows) -> None:
    """Refuse what is no expert of a row's variant, or more or fewer experts than it chooses."""
    if len(rows.variants) == 1:
        wrong = (chosen < 0) | (chosen >= len(rows.variants[0].experts))
    else:
        sizes = np.array([(len(v.experts), v.top_k) for v in rows.variants])[rows.numbers()]
        outside = (chosen < 0) | (chosen >= sizes[:, :1])
        behind = np.arange(chosen.shape[1]) >= sizes[:, 1:]  # (T, k)
        wrong = np.where(behind, chosen != EMPTY, outside)
    if not wrong.any():
        return
    row, slot = (int(at) for at in np.argwhere(wrong)[0])
    variant = next(s.gate for s in rows.sequences if row < s.last)
    known, gate = len(variant.experts), rows.gate.name
    text = f"gate {gate!r} knows {known} experts, so it must be from 0 to {known - 1}"
    if slot >= variant.top_k:
        text = f"version {variant.version!r} of gate {gate!r} chooses {variant.top_k} experts"
        text = f"{text}, so it must be {EMPTY}, with the weight 0"
    raise _invalid(f"expert_index[{row}, {slot}] is {chosen[row, slot]}; {text}")


def _check_empty(chosen: Indexes, weights: Array) -> None:
    wrong = (chosen == EMPTY) & (weights != 0)
    if wrong.any():
        row, slot = np.argwhere(wrong)[0]
        text = f"there is no expert in this slot ({EMPTY}), so it must be 0"
        raise _invalid(f"expert_weights[{row}, {slot}] is {weights[row, slot]}; {text}")


def parse_route(
    message: RouteRequest, view: View, read: ReadToken = read_token, pins: PinsOf = pins_of
) -> Rows:
    """Read a request to which the gate is still to be applied. Raises Refused."""
    rows = _parse_rows(message, view, read, pins, None)
    check_route(rows.gate, rows.sequences)
    return rows


def _parse_rows(
    message: DispatchRequest | RouteRequest,
    view: View,
    read: ReadToken,
    pins: PinsOf,
    applied: str | None,
) -> Rows:
    """Read what both kinds have; `applied` is the caller's gate, None where the router's counts."""
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
    of_gate = GateReader(view, gate, message.layer, pins, applied)
    sequences = read_sequences(message.sequences, view, read, of_gate)
    shape = (sequences[-1].last, table.hidden_size)
    hidden = _array("hidden", message.hidden, _hidden_dtype(message, view), shape)
    variants = tuple({s.gate.sha256: s.gate for s in sequences}.values())
    return Rows(message.layer, gate, hidden, sequences, variants, message.deadline_ms)


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


def check_mixture(mixture: str, view: View) -> None:
    """Raise Refused unless a message is for the mixture that is served."""
    served = view.table.mixture
    if mixture != served:
        text = f"mixture is {mixture!r}; this router serves {served!r}"
        raise Refused(Code.FAILED_PRECONDITION, text)


def _array(name: str, data: bytes, dtype: np.dtype[Any], shape: tuple[int, int]) -> Array:
    wanted = shape[0] * shape[1] * dtype.itemsize
    if len(data) != wanted:
        raise _invalid(
            f"{name} has {len(data)} bytes; {shape[0]} x {shape[1]} of {dtype.name} are {wanted}"
        )
    return np.frombuffer(data, dtype).reshape(shape)
