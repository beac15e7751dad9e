"""Finds the way of choosing that a policy describes. Pure."""

from __future__ import annotations

from typing import assert_never

from moe_core.policy import Groups, Kind, Policy, Weights
from moe_router.expert_choice import ExpertChoice
from moe_router.gate import Chooser
from moe_router.group_limited import GroupLimitedTopK
from moe_router.noisy_top_k import NoisyTopK
from moe_router.top_k import TopK


def chooser_of(policy: Policy) -> Chooser:
    """Return what chooses as a policy says."""
    match policy.kind:
        case Kind.TOP_K | Kind.SWITCH:
            return TopK(policy.top_k, policy.weighting)
        case Kind.NOISY_TOP_K:
            return NoisyTopK(policy.top_k)
        case Kind.GROUP_LIMITED_TOP_K:
            return GroupLimitedTopK(
                k=policy.top_k,
                groups=policy.groups or Groups(1, 1),
                scoring=policy.scoring,
                renormalises=policy.weighting is Weights.RENORMALISED,
                scaling=float(policy.routed_scaling),
            )
        case Kind.EXPERT_CHOICE:
            return ExpertChoice(policy.top_k)
        case _:
            assert_never(policy.kind)
