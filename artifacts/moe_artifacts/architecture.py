"""What a model's config.json says that matters for its experts and gates. Pure.

Of families whose experts compute as Mixtral's do: Mixtral, OLMoE, Qwen2-MoE, Qwen3-MoE, DeepSeek-V2
and V3, GLM-4-MoE. Layers that have experts are counted from 0 and called so everywhere else; what
a checkpoint numbers them is in `moe_layers`. Layers without experts belong to the trunk.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple, Self

from moe_artifacts.errors import BadCheckpoint
from moe_artifacts.families import policy_of
from moe_core.document import Reader
from moe_core.policy import Policy


@dataclass(frozen=True, slots=True)
class Architecture:
    """Sizes of a model's experts, which of its layers have some, and how its gates choose.

    `decoder_layers` are all that the model has; a checkpoint may hold `unused_layers` more behind
    them (DeepSeek-V3's predict several tokens at once), which nothing here serves.
    """

    hidden_size: int
    intermediate_size: int
    moe_layers: tuple[int, ...]
    decoder_layers: int
    unused_layers: int
    experts: int
    policy: Policy

    @classmethod
    def read(cls, reader: Reader) -> Self:
        """Raises BadCheckpoint for another family, InvalidDocument for a bad field."""
        family, activation = reader.text("model_type"), reader.text("hidden_act", default="silu")
        policy, layout = policy_of(reader), _LAYOUTS.get(family)
        if policy is None or layout is None:
            right = f"one of {', '.join(_LAYOUTS)}"
            raise BadCheckpoint(f"{reader.path}.model_type is {family!r}; it must be {right}")
        if activation != "silu":
            raise BadCheckpoint(f"{reader.path}.hidden_act is {activation!r}; it must be 'silu'")
        if reader.value.get("quantization_config") is not None:
            right = "convert the checkpoint to BFloat16 first"
            raise BadCheckpoint(f"{reader.path}.quantization_config: it is quantised; {right}")
        count = next((n for n in layout.experts if n in reader.value), layout.experts[0])
        experts = reader.integer(count, low=1, high=1024)
        reader.integer("num_experts_per_tok", low=1, high=experts)
        decoder_layers = reader.integer("num_hidden_layers", low=1, high=1024)
        moe_layers = tuple(layout.moe_layers(reader, decoder_layers))
        if not moe_layers:
            raise BadCheckpoint(f"by {reader.path} no layer has experts; there is nothing to split")
        unused = reader.value.get(_UNUSED, 0)
        return cls(
            hidden_size=reader.integer("hidden_size", low=1, high=1 << 16),
            intermediate_size=reader.integer(layout.width, low=1, high=1 << 20),
            moe_layers=moe_layers,
            decoder_layers=decoder_layers,
            unused_layers=unused if isinstance(unused, int) else 0,
            experts=experts,
            policy=policy,
        )

    @property
    def layers(self) -> int:
        """How many layers have experts."""
        return len(self.moe_layers)

    @property
    def top_k(self) -> int:
        return self.policy.top_k

    def unused(self, decoder_layer: int) -> bool:
        """Say whether a checkpoint may hold this layer though the model does not have it."""
        return 0 <= decoder_layer - self.decoder_layers < self.unused_layers


_UNUSED = "num_nextn_predict_layers"


def _all(reader: Reader, layers: int) -> range:
    if reader.integer("decoder_sparse_step", default=1) != 1 or reader.integers("mlp_only_layers"):
        what = f"{reader.path}.decoder_sparse_step and mlp_only_layers make some layers dense"
        raise BadCheckpoint(f"{what}; every layer must have experts")
    return range(layers)


def _by_step(reader: Reader, layers: int) -> list[int]:
    """Qwen: every nth layer from the nth on, without those that are named."""
    step, dense = reader.integer("decoder_sparse_step", low=1, default=1), "mlp_only_layers"
    named = reader.integers(dense) if reader.value.get(dense) is not None else ()
    return [layer for layer in range(step - 1, layers, step) if layer not in named]


def _behind_dense(reader: Reader, layers: int) -> range:
    """DeepSeek, GLM: all but the first k."""
    if reader.integer("moe_layer_freq", default=1) != 1:
        freq = reader.value["moe_layer_freq"]
        raise BadCheckpoint(f"{reader.path}.moe_layer_freq is {freq}; it must be 1")
    return range(reader.integer("first_k_dense_replace", default=0), layers)


class _Layout(NamedTuple):
    """What config.json calls the number of experts (the first that is there), and how wide one
    is; which decoder layers have experts."""

    experts: tuple[str, ...]
    width: str
    moe_layers: Callable[[Reader, int], range | list[int]]


_QWEN = _Layout(("num_experts", "num_local_experts"), "moe_intermediate_size", _by_step)
_DEEPSEEK = _Layout(
    ("n_routed_experts", "num_local_experts", "num_experts"),
    "moe_intermediate_size",
    _behind_dense,
)
_LAYOUTS: Final[Mapping[str, _Layout]] = {
    "mixtral": _Layout(("num_local_experts",), "intermediate_size", _all),
    "olmoe": _Layout(("num_experts", "num_local_experts"), "intermediate_size", _all),
    "qwen2_moe": _QWEN,
    "qwen3_moe": _QWEN,
    "deepseek_v2": _DEEPSEEK,
    "deepseek_v3": _DEEPSEEK,
    "glm4_moe": _DEEPSEEK,
}
