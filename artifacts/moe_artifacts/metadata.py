"""What an artifact says of itself, and which tensors it must therefore hold.

Pure. The JSON made here is part of the artifact's bytes, and so of its digest: the same metadata
always gives the same text. An expert's id is not in it: a copy under another id is the same bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Self

from moe_artifacts.encoding import CODES
from moe_artifacts.errors import BadArtifact
from moe_core.document import InvalidDocument, Reader
from moe_core.policy import Bias, Policy, read_beside

KEY = "moeops"
FORMAT = 1
MAX_LAYERS = 1024
MAX_HIDDEN_SIZE = 1 << 16
MAX_INTERMEDIATE_SIZE = 1 << 20
MAX_EXPERTS = 1024
WEIGHT, BIAS, SELECTION_BIAS, NOISE_WEIGHT = "weight", "bias", "selection_bias", "noise_weight"
"""Names of a gate's tensors behind `layers.{l}.`"""
_BIASES = {Bias.LOGITS: BIAS, Bias.SELECTION: SELECTION_BIAS}
ID = re.compile(r"[a-z0-9]([-a-z0-9]{0,48}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class ExpertMetadata:
    """One feed-forward network: down_proj · (silu(gate_proj · x) * (up_proj · x)) per layer."""

    KIND: ClassVar[str] = "expert"

    layers: tuple[int, ...]
    hidden_size: int
    intermediate_size: int
    dtype: str
    activation: str = "silu"

    def __post_init__(self) -> None:
        _check_layers(self.layers)
        _check_size("hiddenSize", self.hidden_size, MAX_HIDDEN_SIZE)
        _check_size("intermediateSize", self.intermediate_size, MAX_INTERMEDIATE_SIZE)
        _check_choice("dtype", self.dtype, CODES)
        _check_choice("activation", self.activation, ("silu",))

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(
            layers=reader.integers("layers"),
            hidden_size=reader.integer("hiddenSize"),
            intermediate_size=reader.integer("intermediateSize"),
            dtype=reader.text("dtype"),
            activation=reader.text("activation"),
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "kind": self.KIND,
            "layers": list(self.layers),
            "hiddenSize": self.hidden_size,
            "intermediateSize": self.intermediate_size,
            "activation": self.activation,
            "dtype": self.dtype,
        }

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Name and shape of each tensor, in the order in which the file holds them."""
        wide = (self.intermediate_size, self.hidden_size)
        shapes = {}
        for layer in self.layers:
            shapes[f"layers.{layer}.gate_proj"] = wide
            shapes[f"layers.{layer}.up_proj"] = wide
            shapes[f"layers.{layer}.down_proj"] = wide[::-1]
        return shapes

    def dtype_of(self, name: str) -> str:
        """Return the dtype of a tensor."""
        return self.dtype

    def check_serves(self, hidden_size: int, layers: tuple[int, ...]) -> None:
        """Raise BadArtifact unless it fits a mixture this wide and has all of these layers."""
        if self.hidden_size != hidden_size:
            raise BadArtifact(
                f"the artifact's hiddenSize is {self.hidden_size}; the mixture's is {hidden_size}"
            )
        missing = sorted(set(layers) - set(self.layers))
        if missing:
            raise BadArtifact(
                f"the artifact's layers are {list(self.layers)}; {missing} are asked for too"
            )


@dataclass(frozen=True, slots=True)
class GateMetadata:
    """Router weights of some layers, one row for each expert in the order of `experts`.

    Its policy says what else was learned, and so which tensors there are beside the weights.
    """

    KIND: ClassVar[str] = "gate"

    layers: tuple[int, ...]
    hidden_size: int
    experts: tuple[str, ...]
    policy: Policy
    dtype: str

    def __post_init__(self) -> None:
        _check_layers(self.layers)
        _check_size("hiddenSize", self.hidden_size, MAX_HIDDEN_SIZE)
        _check_experts(self.experts)
        try:
            self.policy.check(self.experts, "policy")
        except InvalidDocument as error:
            raise BadArtifact(str(error)) from None
        _check_choice("dtype", self.dtype, CODES)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(
            layers=reader.integers("layers"),
            hidden_size=reader.integer("hiddenSize"),
            experts=reader.texts("experts"),
            policy=read_beside(reader),
            dtype=reader.text("dtype"),
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "kind": self.KIND,
            "layers": list(self.layers),
            "hiddenSize": self.hidden_size,
            "experts": list(self.experts),
            "topK": self.policy.top_k,
            "policy": self.policy.kind.value if self.policy.plain else self.policy.to_dict(),
            "dtype": self.dtype,
        }

    @property
    def top_k(self) -> int:
        return self.policy.top_k

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Name and shape of each tensor, in the order in which the file holds them."""
        parts: dict[str, tuple[int, ...]] = {WEIGHT: (len(self.experts), self.hidden_size)}
        if self.policy.bias is not Bias.NONE:
            parts[_BIASES[self.policy.bias]] = (len(self.experts),)
        if self.policy.noise_seed is not None:
            parts[NOISE_WEIGHT] = parts[WEIGHT]
        return {
            f"layers.{layer}.{name}": shape
            for layer in self.layers
            for name, shape in parts.items()
        }

    def dtype_of(self, name: str) -> str:
        """Return the dtype of a tensor: what only selects is float32 beside any weights."""
        return "Float32" if name.endswith(f".{SELECTION_BIAS}") else self.dtype


Metadata = ExpertMetadata | GateMetadata


def to_text(metadata: Metadata) -> str:
    """Return the value of the file's one metadata key: JSON, sorted, without spaces."""
    return json.dumps(metadata.to_dict(), sort_keys=True, separators=(",", ":"))


def from_text(text: str) -> Metadata:
    """Read what `to_text` wrote; unknown fields are left alone. Raises BadArtifact."""
    try:
        reader = Reader(json.loads(text), KEY)
        version = reader.integer("format")
        if version != FORMAT:
            raise BadArtifact(f"{KEY}.format is {version}; this program reads {FORMAT}")
        kind = reader.text("kind")
        _check_choice("kind", kind, (ExpertMetadata.KIND, GateMetadata.KIND))
        return (ExpertMetadata if kind == ExpertMetadata.KIND else GateMetadata).read(reader)
    except (ValueError, RecursionError) as error:
        if isinstance(error, InvalidDocument):
            raise BadArtifact(str(error)) from None
        raise BadArtifact(f"metadata {KEY!r} is not JSON ({error})") from None


def _check_layers(layers: tuple[int, ...]) -> None:
    right = f"1 to {MAX_LAYERS} different numbers from 0 to {MAX_LAYERS - 1}, rising"
    rising = all(a < b for a, b in pairwise(layers))
    if not layers or not rising or layers[0] < 0 or layers[-1] >= MAX_LAYERS:
        raise BadArtifact(f"layers is {list(layers)!s:.60}; it must be {right}")


def _check_size(field: str, value: int, most: int) -> None:
    if not 1 <= value <= most:
        raise BadArtifact(f"{field} is {value}; it must be from 1 to {most}")


def _check_choice(field: str, value: str, choices: Mapping[str, str] | tuple[str, ...]) -> None:
    if value not in choices:
        raise BadArtifact(f"{field} is {value!r:.60}; it must be one of {', '.join(choices)}")


def _check_experts(experts: tuple[str, ...]) -> None:
    if not 1 <= len(experts) <= MAX_EXPERTS:
        raise BadArtifact(f"experts has {len(experts)} ids; it must have 1 to {MAX_EXPERTS}")
    for index, expert in enumerate(experts):
        if not ID.fullmatch(expert):
            raise BadArtifact(
                f"experts[{index}] is {expert!r:.60}; it must be at most 50 lower-case letters, "
                "digits and hyphens, with no hyphen at either end"
            )
        if experts.index(expert) != index:
            raise BadArtifact(f"experts[{index}] is {expert!r}, which is there already")
