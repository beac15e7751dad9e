"""How checkpoints name their tensors: as published, or as transformers holds them.

Published, one tensor for each expert and projection: Mixtral's
`model.layers.{l}.block_sparse_moe.experts.{e}.w1.weight`, and
`model.layers.{l}.mlp.experts.{e}.gate_proj.weight` of OLMoE, Qwen and DeepSeek. Fused, what
a model in memory has: `model.layers.{l}.mlp.experts.gate_up_proj` (E, 2I, H) and `.down_proj`
(E, H, I). Pure: names only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

PROJECTIONS: Final[Mapping[str, str]] = {"gate_proj": "w1", "up_proj": "w3", "down_proj": "w2"}
"""An artifact's name of a projection, and the one that Mixtral published."""

GATE_TENSORS: Final[Mapping[str, str]] = {
    "weight": "weight",
    "bias": "bias",
    "selection_bias": "e_score_correction_bias",
}
"""An artifact's name of what a gate has learned, and the one of transformers' router modules."""

_DECODER_LAYER = re.compile(r"model\.layers\.(\d{1,6})\.")
_LAYER = r"model\.layers\.(\d{1,6})\.(?:block_sparse_moe|mlp)\."
_MIXTURE = re.compile(_LAYER + r"(?:gate|experts)\.")
_PUBLISHED = re.compile(_LAYER + r"experts\.(\d{1,6})\.(w[123]|\w+_proj)\.weight")
_BY_PUBLISHED = {published: name for name, published in PROJECTIONS.items()} | {
    name: name for name in PROJECTIONS
}


class Slice(NamedTuple):
    """One layer's projection of one expert."""

    expert: int
    layer: int
    projection: str


def published(part: Slice) -> tuple[str, str]:
    """Return Mixtral's name of a slice, and that of the others."""
    layer, projection = f"model.layers.{part.layer}", PROJECTIONS[part.projection]
    return (
        f"{layer}.block_sparse_moe.experts.{part.expert}.{projection}.weight",
        f"{layer}.mlp.experts.{part.expert}.{part.projection}.weight",
    )


def fused(part: Slice) -> str:
    """Return the tensor that holds this slice, and those of all other experts."""
    held = "down_proj" if part.projection == "down_proj" else "gate_up_proj"
    return f"model.layers.{part.layer}.mlp.experts.{held}"


def gates(layer: int, part: str = "weight") -> tuple[str, str]:
    """Return the published name of a tensor of a layer's gate, and that of transformers."""
    prefix, name = f"model.layers.{layer}", GATE_TENSORS[part]
    return f"{prefix}.block_sparse_moe.gate.{name}", f"{prefix}.mlp.gate.{name}"


def parse_published(name: str) -> Slice | None:
    """Return which slice a published name is for; None for any other name."""
    match = _PUBLISHED.fullmatch(name)
    if match is None or match[3] not in _BY_PUBLISHED:
        return None
    return Slice(int(match[2]), int(match[1]), _BY_PUBLISHED[match[3]])


def layer_of(name: str) -> int | None:
    """Return the layer of a gate's or expert's tensor; None for a tensor of the trunk."""
    match = _MIXTURE.match(name)
    return match and int(match[1])


def decoder_layer_of(name: str) -> int | None:
    """Return the layer of any tensor that is in one."""
    match = _DECODER_LAYER.match(name)
    return match and int(match[1])


def is_trunk(name: str) -> bool:
    """Say whether a tensor of this name is neither an expert's nor a gate's."""
    return layer_of(name) is None
