"""How the gates of model families choose, told from their configuration. Pure.

Each is what transformers' own block of the family computes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final

from moe_core.document import InvalidDocument, Reader
from moe_core.policy import Bias, Groups, GroupScore, Kind, Policy, Scoring, Weights


def policy_of(config: Reader) -> Policy | None:
    """Return the policy of a model's gates; None for a family that is not known here.

    Raises InvalidDocument for a field that is missing or wrong.
    """
    read = _FAMILIES.get(config.text("model_type"))
    return None if read is None else read(config)


def _top_k(config: Reader) -> int:
    return config.integer("num_experts_per_tok", low=1)


def _mixtral(config: Reader) -> Policy:
    return Policy(_top_k(config))


def _normalised_if_said(config: Reader) -> Policy:
    """OLMoE, Qwen2-MoE, Qwen3-MoE."""
    scaled = config.boolean("norm_topk_prob", default=False)
    return Policy(_top_k(config), weights=None if scaled else Weights.AS_SCORED)


def _gpt_oss(config: Reader) -> Policy:
    return Policy(_top_k(config), weights=Weights.SOFTMAX_OF_CHOSEN, bias=Bias.LOGITS)


def _deepseek_v2(config: Reader) -> Policy:
    """Its block does not look at norm_topk_prob."""
    method = config.text("topk_method", default="greedy")
    if method not in ("greedy", "group_limited_greedy"):
        right = "greedy or group_limited_greedy"
        raise InvalidDocument(f"{config.path}.topk_method is {method!r}; it must be {right}")
    greedy = method == "greedy"
    groups = Groups(1, 1) if greedy else _groups(config, GroupScore.BEST)
    return Policy(
        _top_k(config),
        Kind.GROUP_LIMITED_TOP_K,
        Weights.AS_SCORED,
        groups=groups,
        routed_scaling=_scaling(config),
    )


def _deepseek_v3(config: Reader) -> Policy:
    scaled = config.boolean("norm_topk_prob", default=True)
    return Policy(
        _top_k(config),
        Kind.GROUP_LIMITED_TOP_K,
        None if scaled else Weights.AS_SCORED,
        Bias.SELECTION,
        Scoring.SIGMOID,
        _groups(config, GroupScore.TOP_TWO_SUM),
        _scaling(config),
    )


def _groups(config: Reader, score: GroupScore) -> Groups:
    count = config.integer("n_group", low=1, default=1)
    return Groups(count, config.integer("topk_group", low=1, high=count, default=1), score)


def _scaling(config: Reader) -> Decimal:
    value: Any = config.value.get("routed_scaling_factor", 1.0)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1000:
        right = "a number from 0 to 1000"
        path = f"{config.path}.routed_scaling_factor"
        raise InvalidDocument(f"{path} is {value!r:.60}; it must be {right}")
    return Decimal(repr(value))


_FAMILIES: Final[Mapping[str, Callable[[Reader], Policy]]] = {
    "mixtral": _mixtral,
    "olmoe": _normalised_if_said,
    "qwen2_moe": _normalised_if_said,
    "qwen3_moe": _normalised_if_said,
    "gpt_oss": _gpt_oss,
    "deepseek_v2": _deepseek_v2,
    "deepseek_v3": _deepseek_v3,
    "glm4_moe": _deepseek_v3,
}
