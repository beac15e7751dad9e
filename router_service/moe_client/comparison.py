"""Compares two runs of the same sequences: paired losses, by slice, and choices that flipped.

Pure arithmetic. Each sequence is one pair, whatever its length: tokens within one are not
independent, sequences are. What difference is too much is decided by whoever reads the result.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_RESULT_BYTES = 3500
"""The kubelet keeps 4,096 bytes of a termination message."""

Choices = Mapping[int, NDArray[Any]]
"""By layer, which experts each token's gate chose: (T, k) numbers, or ids, empty for no choice."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One sequence in both runs: its slice, and its mean next-token loss in bits per token."""

    slice: str
    stable: float
    candidate: float


@dataclass(frozen=True, slots=True)
class Flips:
    """How many of `choices`, one for each token and layer, differ between the runs."""

    flipped: int = 0
    choices: int = 0

    def plus(self, more: Flips) -> Flips:
        return Flips(self.flipped + more.flipped, self.choices + more.choices)

    @property
    def percent(self) -> float:
        return 100 * self.flipped / self.choices if self.choices else 0.0


def count_flips(stable: Choices, candidate: Choices, layers: Iterable[int]) -> Flips:
    """Count, in these layers, tokens whose top-k set differs; the order within one is nothing.

    Ids may be those of gates that choose more or fewer experts.
    """
    total = Flips()
    for layer in layers:
        width = max(stable[layer].shape[1], candidate[layer].shape[1])
        ours, theirs = (_sorted(chosen[layer], width) for chosen in (stable, candidate))
        total = total.plus(Flips(int((ours != theirs).any(axis=1).sum()), len(ours)))
    return total


def to_ids(index: NDArray[np.int32], experts: Sequence[str]) -> NDArray[Any]:
    """Return the ids of chosen experts (T, k); -1, no choice, is an empty one."""
    ids: NDArray[Any] = np.array([*experts, ""])[index]
    return ids


def _sorted(chosen: NDArray[Any], width: int) -> NDArray[Any]:
    if chosen.shape[1] < width:
        none = np.zeros((len(chosen), width - chosen.shape[1]), chosen.dtype)  # "" where ids are
        chosen = np.concatenate([chosen, none], axis=1)
    return np.sort(chosen, axis=1)


def summarise(pairs: Sequence[Pair]) -> dict[str, Any]:
    """Return n, mean and standard deviation of candidate − stable, and both means.

    Bits per token; the deviation is that of a sample (n − 1), 0 for a single pair.
    """
    differences = [pair.candidate - pair.stable for pair in pairs]
    return {
        "n": len(pairs),
        "mean": _round(statistics.fmean(differences)),
        "sd": _round(statistics.stdev(differences) if len(pairs) > 1 else 0.0),
        "stable": _round(statistics.fmean(pair.stable for pair in pairs)),
        "candidate": _round(statistics.fmean(pair.candidate for pair in pairs)),
    }


def to_result(named: Mapping[str, str], pairs: Sequence[Pair], flips: Flips) -> str:
    """Return the result as compact JSON: what was compared (`named`), over all and by slice."""
    slices = dict.fromkeys(pair.slice for pair in pairs)
    by_slice = {name: summarise([p for p in pairs if p.slice == name]) for name in slices}
    fields = {
        **named,
        "all": summarise(pairs),
        "slices": by_slice,
        "flippedPercent": _round(flips.percent),
    }
    return json.dumps(fields, separators=(",", ":"))


def to_error(sentence: str) -> str:
    """Return the result of an evaluation that could not be made; its sentence is cut to fit."""
    text = " ".join(sentence.split())
    while len(result := json.dumps({"error": text}, separators=(",", ":"))) > MAX_RESULT_BYTES:
        text = text[: len(text) - (len(result) - MAX_RESULT_BYTES) - 1]
    return result


def _round(value: float) -> float:
    return round(value, 6)
