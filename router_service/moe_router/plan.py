"""Groups the chosen (row, slot) pairs of a request by expert and version, each pair exactly once.

Pure over arrays. A pair is known by its flat position `row * k + slot`. A slot in which the gate
chose nobody (`EMPTY`) is no pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
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
    variants, of_sequence = _distinct(pins)
    if len(variants) == 1:  # nearly always; then each expert chosen is one batch
        found = _groups(request.experts)
        return [Batch(*_target(names[index], variants[0], view), own) for index, own in found]
    targets: dict[_Target, int] = {}
    numbers = np.zeros((len(variants), len(names)), np.intp)  # (variants, E)
    for index in np.unique(request.experts[request.experts != EMPTY]).tolist():
        for number, pin in enumerate(variants):
            target = _target(names[index], pin, view)
            numbers[number, index] = targets.setdefault(target, len(targets))
    sizes = [sequence.last - sequence.first for sequence in request.rows.sequences]
    variant = np.repeat(np.array(of_sequence, np.intp), sizes)  # (T,)
    keys = numbers[variant[:, None], request.experts]  # (T, k)
    keys[request.experts == EMPTY] = EMPTY
    listed = list(targets)
    return [Batch(*listed[key], own) for key, own in _groups(keys)]


def _distinct(pins: Sequence[Pins]) -> tuple[list[Pins], list[int]]:
    """Return the pins that differ in a version, and which of them each sequence has."""
    if all(pin is pins[0] for pin in pins):
        return [pins[0]], [0] * len(pins)
    places: dict[tuple[object, ...], int] = {}
    found: list[Pins] = []
    of_sequence = []
    for pin in pins:
        key = (pin.forced, *sorted((e, v.sha256) for e, v in pin.moved.items()))
        if key not in places:
            places[key] = len(found)
            found.append(pin)
        of_sequence.append(places[key])
    return found, of_sequence


def _target(name: str, pin: Pins, view: View) -> _Target:
    row = view.experts.get(name)
    return name, None if row is None else pin.of(row), name in pin.forced


def _groups(keys: npt.NDArray[Any]) -> list[tuple[int, Pairs]]:
    """Return the places of each key but EMPTY, both rising."""
    flat = keys.ravel()
    order = np.argsort(flat, kind="stable")
    ordered = flat[order]
    cuts = (np.flatnonzero(ordered[1:] != ordered[:-1]) + 1).tolist()
    found = ordered[[0, *cuts]].tolist()
    bounds = pairwise([0, *cuts, len(flat)])
    return [
        (key, order[first:last])
        for key, (first, last) in zip(found, bounds, strict=True)
        if key != EMPTY
    ]
