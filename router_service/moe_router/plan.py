"""Groups the chosen (row, slot) pairs of a request by expert and version, each pair exactly once.

Pure over arrays. A pair is known by its flat position `row * k + slot`. A slot in which the gate
chose nobody (`EMPTY`) is no pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from moe_core.rollout import Version
from moe_router.request import Request
from moe_router.sessions import Pins
from moe_router.variants import EMPTY
from moe_router.view import View

Pairs = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Batch:
    """The pairs for which sessions chose one expert at one version; None where it has none yet.

    Where it is `forced`, no other version may answer.
    """

    expert_id: str
    version: Version | None
    forced: bool
    pairs: Pairs  # (n,) flat positions, rising


_Target = tuple[str, Version | None, bool]  # a batch without its pairs


def plan(request: Request, pins: Sequence[Pins], view: View) -> list[Batch]:
    """Return the batches of a request whose sequences have these pins, in this order."""
    names = request.names
    variants: dict[tuple[object, ...], int] = {}
    variant_pins: list[Pins] = []
    of_sequence = []
    for pin in pins:
        key = (pin.forced, *sorted((e, v.sha256) for e, v in pin.moved.items()))
        if key not in variants:
            variants[key] = len(variant_pins)
            variant_pins.append(pin)
        of_sequence.append(variants[key])
    targets: dict[_Target, int] = {}
    numbers = np.zeros((len(variant_pins), len(names)), np.intp)  # (variants, E)
    for index in np.unique(request.experts[request.experts != EMPTY]).tolist():
        for number, pin in enumerate(variant_pins):
            numbers[number, index] = _number(names[index], pin, view, targets)
    sizes = [sequence.last - sequence.first for sequence in request.rows.sequences]
    variant = np.repeat(np.array(of_sequence, np.intp), sizes)  # (T,)
    keys = numbers[variant[:, None], request.experts]  # (T, k)
    keys[request.experts == EMPTY] = EMPTY
    listed = list(targets)
    return [Batch(*listed[key], pairs) for key, pairs in _groups(keys)]


def _number(name: str, pin: Pins, view: View, targets: dict[_Target, int]) -> int:
    row = view.experts.get(name)
    target = (name, None if row is None else pin.of(row), name in pin.forced)
    return targets.setdefault(target, len(targets))


def _groups(keys: npt.NDArray[np.intp]) -> list[tuple[int, Pairs]]:
    flat: npt.NDArray[Any] = keys.ravel()
    order = np.argsort(flat, kind="stable")
    order = order[np.searchsorted(flat, EMPTY, side="right", sorter=order) :]
    ordered = flat[order]
    starts = np.flatnonzero(ordered[1:] != ordered[:-1]) + 1
    return [(int(flat[pairs[0]]), pairs) for pairs in np.split(order, starts) if len(pairs)]
