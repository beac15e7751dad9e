"""Every kind of gate policy, drawn at random so that it fits the experts of a gate."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from hypothesis import strategies as st

from moe_core.contexts import Context, Contexts
from moe_core.policy import (
    Bias,
    Capacity,
    Groups,
    GroupScore,
    Kind,
    Overflow,
    Policy,
    Scoring,
    Weights,
)


def decimals(low: str, high: str) -> st.SearchStrategy[Decimal]:
    return st.decimals(Decimal(low), Decimal(high), places=2)


@st.composite
def policies(draw: st.DrawFn, experts: Sequence[str]) -> Policy:
    """Return any policy that can be written for these experts."""
    count, kind = len(experts), draw(st.sampled_from(list(Kind)))
    groups = draw(_groups(count)) if kind is Kind.GROUP_LIMITED_TOP_K else None
    most = count if groups is None else count // groups.count * groups.chosen
    limited, noisy = groups is not None, kind is Kind.NOISY_TOP_K
    weights: Sequence[Weights | None] = [None]
    if kind is Kind.TOP_K:
        weights = [None, Weights.AS_SCORED, Weights.SOFTMAX_OF_CHOSEN]
    elif limited:
        weights = [None, Weights.AS_SCORED]
    capacity = st.builds(Capacity, decimals("0.01", "9"), st.sampled_from(list(Overflow)))
    return Policy(
        top_k=1 if kind is Kind.SWITCH else draw(st.integers(1, min(most, 64))),
        kind=kind,
        weights=draw(st.sampled_from(weights)),
        bias=draw(st.sampled_from(list(Bias) if limited else [Bias.NONE, Bias.LOGITS])),
        scoring=draw(st.sampled_from(list(Scoring))) if limited else Scoring.SOFTMAX,
        groups=groups,
        routed_scaling=draw(decimals("0.5", "20")) if limited else Decimal(1),
        noise_seed=draw(st.none() | st.integers(0, 2**31 - 1)) if noisy else None,
        contexts=draw(st.none() | _contexts(experts)),
        capacity=None if kind is Kind.EXPERT_CHOICE else draw(st.none() | capacity),
    )


@st.composite
def _groups(draw: st.DrawFn, experts: int) -> Groups:
    count = draw(st.sampled_from([n for n in range(1, experts + 1) if experts % n == 0]))
    scores = list(GroupScore) if experts // count > 1 else [GroupScore.BEST]
    return Groups(count, draw(st.integers(1, count)), draw(st.sampled_from(scores)))


@st.composite
def _contexts(draw: st.DrawFn, experts: Sequence[str]) -> Contexts:
    names = draw(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=3, unique=True))
    bias = decimals("-9", "9")
    known = [Context(name, ((draw(st.sampled_from(list(experts))), draw(bias)),)) for name in names]
    return Contexts(draw(decimals("0", "9")), tuple(known))
