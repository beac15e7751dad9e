"""Rows of a gate, fitted: found by what is to find them, passed by what is not, and no chance."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_tuning.rows import Array, Tokens, fit_row, fit_union

HIDDEN, EXPERTS, TOP_K = 12, 5, 2


def clouds(seed: int, apart: float) -> tuple[Array, Tokens, Tokens]:
    """A gate's rows (E, H), and tokens of two kinds whose means are `apart` from each other."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((EXPERTS, HIDDEN))
    direction = rng.standard_normal(HIDDEN)
    direction *= apart / np.linalg.norm(direction)
    old, new = (rng.standard_normal((200, HIDDEN)) + s * direction / 2 for s in (-1, 1))
    return rows, Tokens(new, new @ rows.T), Tokens(old, old @ rows.T)


def chosen(row: Array, rows: Array, tokens: Tokens) -> float:
    """The share of tokens that choose the new row among all."""
    logits = np.column_stack([tokens.logits, tokens.hidden @ row])
    return float((np.argsort(-logits, axis=1)[:, :TOP_K] == len(rows)).any(axis=1).mean())


@settings(max_examples=20)
@given(st.integers(0, 1000))
def test_kinds_far_apart_are_told_apart(seed: int) -> None:
    rows, new, old = clouds(seed, apart=12.0)
    row = fit_row(new, old, TOP_K, keep=4.0, margin=1.0)
    assert chosen(row, rows, new) > 0.95
    assert chosen(row, rows, old) < 0.05


@settings(max_examples=20)
@given(st.integers(0, 1000))
def test_the_more_familiar_text_weighs_the_less_of_it_finds_the_row(seed: int) -> None:
    rows, new, old = clouds(seed, apart=2.0)
    fitted = [fit_row(new, old, TOP_K, keep=keep, margin=1.0) for keep in (0.25, 64.0)]
    careless, careful = (chosen(row, rows, old) for row in fitted)
    assert careful <= careless


def test_it_is_where_no_small_step_is_better() -> None:
    """The gradient of the sum, taken by differences, is zero at the fitted row."""
    _, new, old = clouds(3, apart=2.0)
    row = fit_row(new, old, TOP_K, keep=4.0, margin=1.0)

    def loss(w: Array) -> float:
        top = np.sort(old.logits, axis=1)[:, -TOP_K]
        first = np.logaddexp(0, new.logits.max(axis=1) - new.hidden @ w).mean()
        second = np.logaddexp(0, old.hidden @ w - top + 1.0).mean()
        return float(first + 4.0 * second + 1e-3 / 2 * w @ w)

    steps = np.eye(HIDDEN) * 1e-5
    gradient = [(loss(row + s) - loss(row - s)) / 2e-5 for s in steps]
    assert np.abs(gradient).max() < 1e-5


def test_the_same_tokens_give_the_same_row() -> None:
    _, new, old = clouds(5, apart=3.0)
    first, second = (fit_row(new, old, TOP_K, keep=4.0, margin=1.0) for _ in range(2))
    assert np.array_equal(first, second)


def test_the_row_of_two_that_are_one_is_that_row_and_log_two() -> None:
    """Two equal rows together have the logit of one, and log 2: here a state says 1 throughout."""
    rng = np.random.default_rng(0)
    hidden = np.column_stack([rng.standard_normal((300, HIDDEN - 1)), np.ones(300)])
    rows = rng.standard_normal((EXPERTS, HIDDEN))
    rows[1] = rows[0]
    row = fit_union(Tokens(hidden, hidden @ rows.T), (0, 1))
    wanted = rows[0] + np.log(2) * np.eye(HIDDEN)[-1]
    assert row == pytest.approx(wanted, abs=0.02)
