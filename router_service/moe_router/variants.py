"""Says which variant of its layer's gate each sequence uses, and puts their choices side by side.

While a gate is rolled out, sequences of one message may use variants that list other experts, in
another order, and choose another number of them. Each choice is read by its own variant's list;
afterwards a request has one list for all of its rows. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from moe_core.rows import GateRow, GateVariant
from moe_router.refusal import Code, Refused

Array = npt.NDArray[Any]
Indexes = npt.NDArray[np.int32]

EMPTY = -1  # in place of an expert: the gate chose nobody for this slot


def pinned_variant(
    row: GateRow, pinned: GateVariant, sha256: str, field: str, layer: int, session: str
) -> GateVariant:
    """Return the variant of a session's pins; `sha256` is the one that chose for its rows.

    Raises Refused where that is another one; `field` is what named it.
    """
    if sha256 == pinned.sha256:
        return pinned
    raise Refused(
        Code.FAILED_PRECONDITION,
        f"{field} is {sha256!r}{_known(row, sha256)}; layer {layer} is served with gate "
        f"{row.name!r} version {pinned.version!r}, which is {pinned.sha256}, in session "
        f"{session!r}",
    )


def forced_variant(row: GateRow, sha256: str, field: str) -> GateVariant:
    """Return any variant that the table names and did not take back. Raises Refused."""
    found = next((v for v in row.named if v.sha256 == sha256), None)
    if found is None or sha256 in row.revoked:
        named = ", ".join(f"{v.version!r} {v.sha256}" for v in row.named)
        text = f"{field} is {sha256!r}{_known(row, sha256)}, and gate_forced is set"
        text = f"{text}; the table names for gate {row.name!r}: {named}"
        raise Refused(Code.FAILED_PRECONDITION, text)
    return found


def _known(row: GateRow, sha256: str) -> str:
    """Return what the table says of a digest, to be said after it."""
    target = (row.rollout.target,) if row.rollout is not None else ()
    name = next((v.version for v in (*row.named, *target) if v.sha256 == sha256), "")
    told = f", version {name!r}" if name else ""
    return f"{told}, which was taken back" if sha256 in row.revoked else told


def one_list(variants: Sequence[GateVariant]) -> tuple[tuple[str, ...], Indexes]:
    """Return every expert of these variants, each once, and where the list has those of each.

    Places are (variants, E + 1), for the longest list; the last column, at index EMPTY, is EMPTY.
    """
    names = tuple(dict.fromkeys(e for variant in variants for e in variant.experts))
    numbers = {expert_id: number for number, expert_id in enumerate(names)}
    longest = max(len(variant.experts) for variant in variants)
    places = np.full((len(variants), longest + 1), EMPTY, np.int32)
    for place, variant in zip(places, variants, strict=True):
        place[: len(variant.experts)] = [numbers[expert_id] for expert_id in variant.experts]
    return names, places


def widened(array: Array, width: int, fill: int) -> Array:
    """Return (T, width) of (T, k), with `fill` in the slots behind the others."""
    missing = width - array.shape[1]
    return np.pad(array, ((0, 0), (0, missing)), constant_values=fill) if missing else array
