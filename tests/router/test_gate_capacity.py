"""Capacity, where a policy sets it: which pairs are kept, and that no session changes another."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_core.policy import Capacity, Groups, Kind, Overflow, Policy, Scoring, Weights
from moe_router.capacity import enforce
from moe_router.choosers import chooser_of
from moe_router.gate import Choice, Extra, Floats
from moe_router.variants import EMPTY

many = settings(max_examples=400, deadline=None)


@dataclass(frozen=True)
class Case:
    """Logits of some sequences, and a policy with a capacity."""

    logits: Floats
    batches: tuple[int, ...]
    policy: Policy

    def choose(self) -> tuple[Choice, Choice]:
        """Return what the gate chose, and what is left of it."""
        extra = Extra(self.batches)
        choice = chooser_of(self.policy).choose(self.logits, extra)
        return choice, enforce(choice, self.logits, extra, self.policy)

    def room(self, rows: int) -> int:
        assert self.policy.capacity is not None
        factor = Fraction(self.policy.capacity.factor)
        experts: int = self.logits.shape[1]
        return math.ceil(factor * self.policy.top_k * rows / experts)


@st.composite
def cases(draw: st.DrawFn, overflow: Overflow) -> Case:
    experts = draw(st.integers(1, 6))
    batches = tuple(draw(st.lists(st.integers(1, 12), min_size=1, max_size=3)))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    crowd = random.normal(0, 2, experts)  # some experts are liked by most
    logits = crowd + random.normal(0, 1, (sum(batches), experts))
    factor = draw(st.sampled_from([Decimal(f) for f in ("0.1", "0.5", "1", "1.2", "1.25", "3")]))
    policy = Policy(
        draw(st.integers(1, experts)),
        weights=draw(st.sampled_from(list(Weights))),
        capacity=Capacity(factor, overflow),
    )
    return Case(logits.astype(np.float32), batches, policy)


@many
@given(cases(Overflow.RESIDUAL))
def test_residual_keeps_the_first_pairs_of_each_expert_and_their_weights(case: Case) -> None:
    choice, kept = case.choose()
    row = 0
    for rows in case.batches:
        used = [0] * case.logits.shape[1]
        for _ in range(rows):
            for slot, expert in enumerate(choice.experts[row].tolist()):
                full = used[expert] >= case.room(rows)
                used[expert] += 1
                assert kept.experts[row, slot] == (EMPTY if full else expert)
                assert kept.weights[row, slot] == (0 if full else choice.weights[row, slot])
            row += 1


@many
@given(cases(Overflow.NEXT_BEST))
def test_next_best_chooses_as_if_full_experts_were_not_there(case: Case) -> None:
    _, kept = case.choose()
    row, k = 0, case.policy.top_k
    for rows in case.batches:
        used = [0] * case.logits.shape[1]
        for _ in range(rows):
            values = case.logits[row].astype(np.float64)
            order = sorted(range(len(values)), key=lambda e: -values[e])
            best = [e for e in order if used[e] < case.room(rows)][:k]
            for expert in best:
                used[expert] += 1
            assert kept.experts[row].tolist() == best + [EMPTY] * (k - len(best))
            shares = np.exp(values - values.max())
            shares = shares / shares.sum()
            if case.policy.weighting is not Weights.AS_SCORED and best:
                shares = shares / shares[best].sum()
            wanted = [*shares[best], *[0.0] * (k - len(best))]
            np.testing.assert_allclose(kept.weights[row], wanted, atol=1e-5)
            row += 1


@many
@given(cases(Overflow.NEXT_BEST) | cases(Overflow.RESIDUAL))
def test_a_sequence_gets_what_it_would_get_alone(case: Case) -> None:
    _, together = case.choose()
    first = 0
    for rows in case.batches:
        own = slice(first, first + rows)
        _, alone = Case(case.logits[own], (rows,), case.policy).choose()
        assert together.experts[own].tolist() == alone.experts.tolist()
        first += rows


def test_next_best_stays_within_the_groups_of_a_row() -> None:
    """All rows choose the first group, whose two experts have room for one row each."""
    policy = Policy(
        1,
        Kind.GROUP_LIMITED_TOP_K,
        scoring=Scoring.SIGMOID,
        groups=Groups(2, 1),
        capacity=Capacity(Decimal(1), Overflow.NEXT_BEST),
    )
    logits = np.tile(np.array([[3, 2, 1, 0]], np.float32), (3, 1))
    _, kept = Case(logits, (3,), policy).choose()
    assert kept.experts[:, 0].tolist() == [0, 1, EMPTY]


def test_one_row_never_overflows() -> None:
    policy = Policy(2, capacity=Capacity(Decimal("0.01")))
    choice, kept = Case(np.eye(2, dtype=np.float32), (1, 1), policy).choose()
    assert kept.experts.tolist() == choice.experts.tolist()
