"""Requests to repeat: what the gates of a model sent to its experts, layer by layer.

A recording is made from a model's forward (`recorder`) or at random, and kept as a safetensors
file. Free of torch, so that load can be made anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file

from moe_client.mixture import Mixture
from moe_core.dtypes import by_name

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class LayerRows:
    """What one layer's experts were asked, and, where it is known, the combined answer."""

    layer: int
    hidden: Array  # (T, H)
    expert_index: Array  # (T, k), int32
    expert_weights: Array  # (T, k)
    expected: Array | None = None  # (T, H)

    def part(self, start: int, stop: int) -> LayerRows:
        """Return some of the rows."""
        expected = None if self.expected is None else self.expected[start:stop]
        rows = slice(start, stop)
        return LayerRows(
            self.layer,
            self.hidden[rows],
            self.expert_index[rows],
            self.expert_weights[rows],
            expected,
        )


@dataclass(frozen=True, slots=True)
class Text:
    """One sequence: the same T rows in each layer, layers in the order of the model."""

    layers: tuple[LayerRows, ...]

    @property
    def rows(self) -> int:
        return len(self.layers[0].hidden)


@dataclass(frozen=True, slots=True)
class Recording:
    """Sequences of one model."""

    texts: tuple[Text, ...]

    def save(self, path: Path) -> None:
        """Write everything to a safetensors file, in names `TEXT.LAYER.WHAT`."""
        arrays = {}
        for number, text in enumerate(self.texts):
            for rows in text.layers:
                for what in ("hidden", "expert_index", "expert_weights", "expected"):
                    if (array := getattr(rows, what)) is not None:
                        arrays[f"{number}.{rows.layer}.{what}"] = np.ascontiguousarray(array)
        save_file(arrays, path)


def load_recording(path: Path) -> Recording:
    """Read what `Recording.save` wrote. Raises OSError, KeyError."""
    texts: dict[int, dict[int, dict[str, Array]]] = {}
    with safe_open(path, "numpy") as file:
        for name in file.keys():  # noqa: SIM118  (no mapping)
            number, layer, what = name.split(".")
            text = texts.setdefault(int(number), {})
            text.setdefault(int(layer), {})[what] = file.get_tensor(name)
    return Recording(
        tuple(
            Text(tuple(LayerRows(layer, **text[layer]) for layer in sorted(text)))
            for _, text in sorted(texts.items())
        )
    )


def random_recording(
    mixture: Mixture, *, texts: int = 8, rows: int = 64, seed: int = 0
) -> Recording:
    """Return normal hidden states with random choices that any router of `mixture` can answer."""
    rng = np.random.default_rng(seed)
    layers = sorted({layer for gate in mixture.gates for layer in gate.layers})
    return Recording(
        tuple(
            Text(tuple(_random_rows(rng, mixture, layer, rows) for layer in layers))
            for _ in range(texts)
        )
    )


def _random_rows(rng: np.random.Generator, mixture: Mixture, layer: int, rows: int) -> LayerRows:
    gate = mixture.gate_of(layer)
    assert gate is not None  # the layer is one of a gate's
    hidden = rng.standard_normal((rows, mixture.hidden_size), np.float32)
    scores = rng.random((rows, len(gate.experts)), np.float32)
    index = np.argsort(-scores, axis=1)[:, : gate.top_k].astype(np.int32)
    chosen = np.take_along_axis(scores, index, axis=1)
    weights = chosen / chosen.sum(axis=1, keepdims=True)
    return LayerRows(layer, hidden.astype(by_name(mixture.dtype).numpy), index, weights)
