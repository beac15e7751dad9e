"""Every way of choosing equals a plain loop over rows, on random cases with many equal logits."""

from __future__ import annotations

import math
from dataclasses import replace
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from moe_core.policy import (
    Bias,
    Groups,
    GroupScore,
    Kind,
    Policy,
    Scoring,
    Weights,
)
from moe_router.choosers import chooser_of
from moe_router.gate import Choice, Extra, Floats
from moe_router.noisy_top_k import draw
from moe_router.variants import EMPTY

many = settings(max_examples=400, deadline=None)
"""Thousands of rows, each a case of its own."""

GLAM, GROK = Policy(2), Policy(2, weights=Weights.AS_SCORED)


def softmax(row: list[float]) -> list[float]:
    above = [math.exp(x - max(row)) for x in row]
    return [x / sum(above) for x in above]


def ranked(scores: list[float]) -> list[int]:
    """Experts by falling score; of equal ones the lower first."""
    return sorted(range(len(scores)), key=lambda e: (-scores[e], e))


def grid(seed: int, rows: int, experts: int) -> Floats:
    """Logits of few values, so that many are equal; none is the negative of another."""
    whole = np.random.default_rng(seed).integers(0, 33, (rows, experts))
    return (whole / 4).astype(np.float32)


def check(choice: Choice, row: int, experts: list[int], weights: list[float]) -> None:
    assert choice.experts[row].tolist() == experts
    np.testing.assert_allclose(choice.weights[row], weights, atol=1e-6)


@st.composite
def cases(draw_: st.DrawFn) -> tuple[Floats, int]:
    experts = draw_(st.integers(1, 12))
    rows = draw_(st.integers(1, 10))
    return grid(draw_(st.integers(0, 2**32)), rows, experts), draw_(st.integers(1, experts))


@many
@given(cases(), st.sampled_from(list(Weights)))
def test_top_k_is_the_plain_loop(case: tuple[Floats, int], weights: Weights) -> None:
    logits, k = case
    choice = chooser_of(Policy(k, weights=weights)).choose(logits, Extra())

    for row, values in enumerate(logits.tolist()):
        best = ranked(values)[:k]
        shares = [softmax(values)[e] for e in best]
        if weights is Weights.RENORMALISED:
            shares = [share / sum(shares) for share in shares]
        elif weights is Weights.SOFTMAX_OF_CHOSEN:
            shares = softmax([values[e] for e in best])
        check(choice, row, best, shares)


@pytest.mark.parametrize("policy", [GLAM, GROK], ids=["GLaM", "Grok"])
def test_two_experts_are_scaled_to_one_or_keep_their_shares(policy: Policy) -> None:
    logits = np.log(np.array([[0.5, 0.1, 0.3, 0.1]], np.float32))
    choice = chooser_of(policy).choose(logits, Extra())

    check(choice, 0, [0, 2], [0.625, 0.375] if policy is GLAM else [0.5, 0.3])


@many
@given(cases())
def test_switch_takes_the_best_at_its_probability(case: tuple[Floats, int]) -> None:
    logits, _ = case
    choice = chooser_of(Policy(1, Kind.SWITCH)).choose(logits, Extra())

    for row, values in enumerate(logits.tolist()):
        check(choice, row, ranked(values)[:1], [max(softmax(values))])


@many
@given(cases(), st.integers(0, 2**31 - 1), st.booleans())
def test_noisy_top_k_is_the_plain_loop(case: tuple[Floats, int], seed: int, noisy: bool) -> None:
    logits, k = case
    random = np.random.default_rng(seed)
    noise = random.standard_normal(logits.shape).astype(np.float32)
    scale = random.normal(0, 2, logits.shape).astype(np.float32)
    extra = Extra(noise=noise, noise_scale=scale) if noisy else Extra()
    choice = chooser_of(Policy(k, Kind.NOISY_TOP_K)).choose(logits, extra)

    for row, clean in enumerate(logits.tolist()):
        values = [
            x + float(n) * math.log1p(math.exp(s)) if noisy else x
            for x, n, s in zip(clean, noise[row], scale[row], strict=True)
        ]
        apart = np.diff(np.sort(values))
        assume(not noisy or len(values) == 1 or apart.min() > 1e-5)
        best = ranked(values)[:k]
        assert choice.experts[row].tolist() == best
        np.testing.assert_allclose(
            choice.weights[row], softmax([values[e] for e in best]), atol=1e-5
        )


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**31 - 1))
def test_the_noise_of_a_row_hangs_on_the_seed_and_the_row_alone(
    rows: int, experts: int, seed: int
) -> None:
    hidden = np.random.default_rng(seed).standard_normal((rows, 5)).astype(np.float16)
    noise = draw(hidden, experts, seed)

    assert (draw(hidden[::-1], experts, seed)[::-1] == noise).all()
    assert (draw(hidden[:1], experts, seed) == noise[:1]).all()
    assert (draw(hidden, experts, seed + 1) != noise).all()


def test_the_noise_is_a_standard_normal_distribution() -> None:
    hidden = np.random.default_rng(1).standard_normal((4_000, 8)).astype(np.float32)
    noise = draw(hidden, 8, 7).astype(np.float64)

    assert abs(noise.mean()) < 0.02
    assert abs(noise.var() - 1) < 0.03
    assert abs((noise**4).mean() - 3) < 0.2
    assert abs(np.corrcoef(noise.T) - np.eye(8)).max() < 0.06


@st.composite
def grouped(draw_: st.DrawFn) -> tuple[Floats, Policy]:
    size, count = draw_(st.integers(1, 4)), draw_(st.integers(1, 4))
    chosen = draw_(st.integers(1, count))
    scores = list(GroupScore) if size > 1 else [GroupScore.BEST]
    policy = Policy(
        draw_(st.integers(1, size * chosen)),
        Kind.GROUP_LIMITED_TOP_K,
        draw_(st.sampled_from([None, Weights.AS_SCORED])),
        draw_(st.sampled_from([Bias.NONE, Bias.SELECTION])),
        draw_(st.sampled_from(list(Scoring))),
        Groups(count, chosen, draw_(st.sampled_from(scores))),
        draw_(st.sampled_from([Decimal(1), Decimal("2.5"), Decimal(16)])),
    )
    return grid(draw_(st.integers(0, 2**32)), draw_(st.integers(1, 8)), size * count), policy


@many
@given(grouped(), st.integers(0, 2**32))
def test_group_limited_top_k_is_the_plain_loop(case: tuple[Floats, Policy], seed: int) -> None:
    logits, policy = case
    groups, experts = policy.groups, logits.shape[1]
    assert groups is not None
    halves = np.random.default_rng(seed).integers(-2, 3, size=(experts,))
    bias = np.asarray(halves / 2, np.float32)
    extra = Extra(selection_bias=bias if policy.bias is Bias.SELECTION else None)
    choice = chooser_of(policy).choose(logits, extra)

    size = experts // groups.count
    for row, values in enumerate(logits.tolist()):
        scores = softmax(values)
        if policy.scoring is Scoring.SIGMOID:
            scores = [1 / (1 + math.exp(-x)) for x in values]
        wish = [
            s + (float(b) if extra.selection_bias is not None else 0)
            for s, b in zip(scores, bias, strict=True)
        ]
        takes = 1 if groups.score is GroupScore.BEST else 2
        of_group = [
            sum(sorted(wish[g * size : (g + 1) * size])[-takes:]) for g in range(groups.count)
        ]
        inside = ranked(of_group)[: groups.chosen]
        best = [e for e in ranked(wish) if e // size in inside][: policy.top_k]
        weights = [scores[e] for e in best]
        if policy.weighting is Weights.RENORMALISED:
            weights = [weight / sum(weights) for weight in weights]
        scaled = [weight * float(policy.routed_scaling) for weight in weights]
        assert choice.experts[row].tolist() == best
        np.testing.assert_allclose(choice.weights[row], scaled, rtol=3e-6, atol=1e-6)


@st.composite
def sequences(draw_: st.DrawFn) -> tuple[Floats, tuple[int, ...], int]:
    experts = draw_(st.integers(1, 8))
    batches = tuple(draw_(st.lists(st.integers(1, 9), min_size=1, max_size=3)))
    random = np.random.default_rng(draw_(st.integers(0, 2**32)))
    logits = random.normal(0, 2, (sum(batches), experts)).astype(np.float32)
    return logits, batches, draw_(st.integers(1, experts))


@many
@given(sequences())
def test_expert_choice_is_the_plain_loop(case: tuple[Floats, tuple[int, ...], int]) -> None:
    logits, batches, k = case
    choice = chooser_of(Policy(k, Kind.EXPERT_CHOICE)).choose(logits, Extra(batches))

    shares = [softmax(values) for values in logits.tolist()]
    mine: list[list[int]] = [[] for _ in shares]
    first, experts = 0, logits.shape[1]
    for rows in batches:
        takes = min(rows, math.ceil(k * rows / experts))
        for expert in range(experts):
            column = [shares[row][expert] for row in range(first, first + rows)]
            assume(rows == 1 or np.diff(np.sort(column)).min() > 1e-6)
            for row in ranked(column)[:takes]:
                mine[first + row].append(expert)
        first += rows
    width = max(1, max(map(len, mine)))
    for row, own in enumerate(mine):
        best = [e for e in ranked(shares[row]) if e in own]
        left = width - len(best)
        check(choice, row, best + [EMPTY] * left, [shares[row][e] for e in best] + [0.0] * left)


def test_equal_rows_go_to_experts_in_their_order() -> None:
    choice = chooser_of(Policy(1, Kind.EXPERT_CHOICE)).choose(
        np.zeros((4, 2), np.float32), Extra((4,))
    )
    assert choice.experts.tolist() == [[0, 1], [0, 1], [-1, -1], [-1, -1]]


@pytest.mark.parametrize("kind", Kind)
def test_huge_logits_do_not_overflow(kind: Kind) -> None:
    policy = Policy(1, kind, groups=Groups(1, 1))
    logits = np.array([[1.5e38, -1.5e38]], np.float32)
    choice = chooser_of(policy).choose(logits, Extra((1,)))

    assert np.isfinite(choice.weights).all()
    assert choice.experts[0, 0] == 0
    assert choice.weights[0, 0] == 1.0


@many
@given(cases(), st.sampled_from(list(Weights)), st.integers(0, 2**32))
def test_what_is_barred_is_as_if_it_had_the_lowest_score(
    case: tuple[Floats, int], weights: Weights, seed: int
) -> None:
    logits, k = case
    barred = np.random.default_rng(seed).random(logits.shape) < 0.5
    chooser = chooser_of(Policy(k, weights=weights))
    choice = chooser.choose(logits, Extra(barred=barred))

    every = chooser_of(replace(Policy(k, weights=weights), top_k=logits.shape[1]))
    order: Any = every.choose(logits, Extra()).experts.tolist()
    for row, wished in enumerate(order):
        left = [e for e in wished if not barred[row, e]][:k]
        assert choice.experts[row].tolist() == left + [EMPTY] * (k - len(left))
        assert (choice.weights[row] > 0).tolist() == [n < len(left) for n in range(k)]
