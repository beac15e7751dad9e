"""How a gate chooses: one description for the Gate object, its artifact and the table.

All three hold the same JSON. What a kind computes is in `moe_router`, with its paper; here is only
which settings it has, and what fits together. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final, Self

from moe_core.contexts import Contexts
from moe_core.decimals import read_decimal, show_decimal
from moe_core.document import InvalidDocument, Reader

MAX_TOP_K = 64
DEFAULT_CAPACITY = Decimal("1.2")


class Kind(StrEnum):
    """The way of choosing."""

    TOP_K = "TopK"
    SWITCH = "Switch"
    NOISY_TOP_K = "NoisyTopK"
    GROUP_LIMITED_TOP_K = "GroupLimitedTopK"
    EXPERT_CHOICE = "ExpertChoice"


class Weights(StrEnum):
    """How chosen experts are weighted: by their scores over all experts, scaled to the sum one or
    as they are; or by a softmax over the chosen logits alone."""

    RENORMALISED = "Renormalised"
    AS_SCORED = "AsScored"
    SOFTMAX_OF_CHOSEN = "SoftmaxOfChosen"


class Bias(StrEnum):
    """A learned vector (E,): none, one of the linear layer, or one for the selection only."""

    NONE = "None"
    LOGITS = "Logits"
    SELECTION = "Selection"


class Scoring(StrEnum):
    """How logits become scores."""

    SOFTMAX = "Softmax"
    SIGMOID = "Sigmoid"


class GroupScore(StrEnum):
    """What a group of experts is chosen by: its best expert, or the sum of its best two."""

    BEST = "Best"
    TOP_TWO_SUM = "TopTwoSum"


class Overflow(StrEnum):
    """What becomes of a row whose expert is full: nothing in its place, or its next best expert."""

    RESIDUAL = "Residual"
    NEXT_BEST = "NextBest"


@dataclass(frozen=True, slots=True)
class Groups:
    """Experts in `count` groups of equal size, in row order, of which `chosen` are looked into."""

    count: int
    chosen: int
    score: GroupScore = GroupScore.BEST

    @classmethod
    def read(cls, reader: Reader) -> Self:
        count = reader.integer("count", low=1, high=256)
        chosen = reader.integer("chosen", low=1, high=count)
        return cls(count, chosen, reader.enum("score", GroupScore, default=GroupScore.BEST))

    def to_dict(self) -> dict[str, Any]:
        return {"count": self.count, "chosen": self.chosen, "score": self.score.value}


@dataclass(frozen=True, slots=True)
class Capacity:
    """An expert takes ceil(factor·k·T/E) pairs of the T rows of a sequence in one message."""

    factor: Decimal = DEFAULT_CAPACITY
    overflow: Overflow = Overflow.RESIDUAL


_WEIGHTS: Final[Mapping[Kind, tuple[Weights, ...]]] = {
    Kind.TOP_K: tuple(Weights),
    Kind.SWITCH: (Weights.AS_SCORED,),
    Kind.NOISY_TOP_K: (Weights.SOFTMAX_OF_CHOSEN,),
    Kind.GROUP_LIMITED_TOP_K: (Weights.RENORMALISED, Weights.AS_SCORED),
    Kind.EXPERT_CHOICE: (Weights.AS_SCORED,),
}
"""The weights that a kind can have; the first where nothing is said."""
_ONLY: Final[Mapping[str, Kind]] = {
    "scoring": Kind.GROUP_LIMITED_TOP_K,
    "groups": Kind.GROUP_LIMITED_TOP_K,
    "routedScaling": Kind.GROUP_LIMITED_TOP_K,
    "noise": Kind.NOISY_TOP_K,
}
"""Settings of one kind alone."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How a gate chooses; `Policy(2)` is Mixtral's way.

    `top_k` is how many experts a row is sent to, of ExpertChoice on average. `noise_seed` is None
    where no noise is added, `capacity` where experts take whatever comes.
    """

    top_k: int
    kind: Kind = Kind.TOP_K
    weights: Weights | None = None  # None: what the kind takes for granted
    bias: Bias = Bias.NONE
    scoring: Scoring = Scoring.SOFTMAX
    groups: Groups | None = None
    routed_scaling: Decimal = Decimal(1)
    noise_seed: int | None = None
    contexts: Contexts | None = None
    capacity: Capacity | None = None

    @classmethod
    def read(cls, reader: Reader) -> Self:
        """Read the JSON of a policy. Raises InvalidDocument."""
        kind = reader.enum("type", Kind)
        for name, only in _ONLY.items():
            if name in reader.value and kind is not only:
                raise InvalidDocument(f"{reader.path}.{name} is for {only}; type is {kind}")
        top_k = reader.integer("topK", low=1, high=MAX_TOP_K)
        if kind is Kind.SWITCH and top_k != 1:
            raise InvalidDocument(f"{reader.path}.topK is {top_k}; Switch has 1")
        groups = reader.optional_child("groups")
        if kind is Kind.GROUP_LIMITED_TOP_K and groups is None:
            raise InvalidDocument(f"{reader.path}.groups is missing; {kind} needs it")
        noise, contexts = reader.optional_child("noise"), reader.optional_child("contexts")
        return cls(
            top_k=top_k,
            kind=kind,
            weights=_weights(reader, kind),
            bias=_bias(reader, kind),
            scoring=reader.enum("scoring", Scoring, default=Scoring.SOFTMAX),
            groups=None if groups is None else Groups.read(groups),
            routed_scaling=read_decimal(reader, "routedScaling", "0", "1000", default="1"),
            noise_seed=None if noise is None else noise.integer("seed", high=2**31 - 1),
            contexts=None if contexts is None else Contexts.read(contexts),
            capacity=_capacity(reader, kind),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON that `read` reads; what a kind takes for granted is left out."""
        content: dict[str, Any] = {"type": self.kind.value, "topK": self.top_k}
        if self.weights is not None:
            content["weights"] = self.weights.value
        if self.bias is not Bias.NONE:
            content["bias"] = self.bias.value
        if self.scoring is not Scoring.SOFTMAX:
            content["scoring"] = self.scoring.value
        if self.groups is not None:
            content["groups"] = self.groups.to_dict()
        if self.routed_scaling != 1:
            content["routedScaling"] = show_decimal(self.routed_scaling)
        if self.noise_seed is not None:
            content["noise"] = {"seed": self.noise_seed}
        if self.contexts is not None:
            content["contexts"] = self.contexts.to_dict()
        if self.capacity is not None:
            content["capacityFactor"] = show_decimal(self.capacity.factor)
            content["overflow"] = self.capacity.overflow.value
        return content

    @property
    def weighting(self) -> Weights:
        return self.weights or _WEIGHTS[self.kind][0]

    @property
    def plain(self) -> bool:
        """Whether it is Mixtral's: all that documents before policies could say."""
        return self == Policy(self.top_k)

    def check(self, experts: Sequence[str], path: str) -> None:
        """Raise InvalidDocument unless it fits a gate of these experts."""
        count, groups = len(experts), self.groups
        if self.top_k > count:
            raise InvalidDocument(f"{path}.topK is {self.top_k}; there are {count} experts")
        if groups is not None:
            size = count // groups.count
            if size * groups.count != count:
                text = f"{count} experts cannot be in groups of equal size"
                raise InvalidDocument(f"{path}.groups.count is {groups.count}; {text}")
            if self.top_k > size * groups.chosen:
                text = f"{groups.chosen} groups have {size * groups.chosen} experts"
                raise InvalidDocument(f"{path}.topK is {self.top_k}; {text}")
            if groups.score is GroupScore.TOP_TWO_SUM and size < 2:
                text = "groups of one expert have no best two"
                raise InvalidDocument(f"{path}.groups.score is {groups.score}; {text}")
        if self.contexts is not None:
            self.contexts.check(experts, f"{path}.contexts")


def read_beside(reader: Reader) -> Policy:
    """Read `policy` of an artifact's metadata or of the table, with `topK` beside it.

    Where it is missing or the text "TopK", as older ones have it, it is Mixtral's.
    """
    top_k = reader.integer("topK", low=1)
    given = reader.value.get("policy", Kind.TOP_K.value)
    if isinstance(given, str):
        if given != Kind.TOP_K:
            right = f"{Kind.TOP_K.value!r} or an object"
            raise InvalidDocument(f"{reader.path}.policy is {given!r:.60}; it must be {right}")
        return Policy(top_k)
    policy = Policy.read(reader.child("policy"))
    if policy.top_k != top_k:
        text = f"topK beside it is {top_k}, which must be the same"
        raise InvalidDocument(f"{reader.path}.policy.topK is {policy.top_k}; {text}")
    return policy


def _weights(reader: Reader, kind: Kind) -> Weights | None:
    can = _WEIGHTS[kind]
    weights = reader.enum("weights", Weights, default=can[0])
    if weights not in can:
        text = f"of {kind} it must be {' or '.join(can)}"
        raise InvalidDocument(f"{reader.path}.weights is {weights.value!r}; {text}")
    return None if weights is can[0] else weights


def _bias(reader: Reader, kind: Kind) -> Bias:
    bias = reader.enum("bias", Bias, default=Bias.NONE)
    if bias is Bias.SELECTION and kind is not Kind.GROUP_LIMITED_TOP_K:
        only = Kind.GROUP_LIMITED_TOP_K
        raise InvalidDocument(f"{reader.path}.bias Selection is for {only}; type is {kind}")
    return bias


def _capacity(reader: Reader, kind: Kind) -> Capacity | None:
    if "capacityFactor" not in reader.value and "overflow" not in reader.value:
        return None
    if kind is Kind.EXPERT_CHOICE:
        text = f"{kind} has no overflow: each expert takes as many rows as the others"
        raise InvalidDocument(f"{reader.path}.capacityFactor and overflow must not be set; {text}")
    factor = read_decimal(
        reader, "capacityFactor", "0.01", "100", default=show_decimal(DEFAULT_CAPACITY)
    )
    return Capacity(factor, reader.enum("overflow", Overflow, default=Overflow.RESIDUAL))
