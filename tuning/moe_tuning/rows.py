"""Fits one row of a gate, so that tokens find an expert or do not: convex, without chance.

Pure: hidden states and logits go in, a row comes out. Where they come from is not its matter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

RIDGE = 1e-3
MOST_STEPS = 50
MOST_TOKENS = 8192
"""Tokens of a text that are looked at, the same distance apart."""
_ENOUGH = 1e-6


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a gate of one layer saw of some text: hidden states (T, H), and its logits (T, E)."""

    hidden: Array
    logits: Array

    def with_one(self) -> Tokens:
        """Return them with a one behind each state, so that what is fitted ends with a bias."""
        ones = np.ones((len(self.hidden), 1), self.hidden.dtype)
        return Tokens(np.concatenate([self.hidden, ones], axis=1), self.logits)

    def fewer(self) -> Tokens:
        """Return MOST_TOKENS of them at most, in float64."""
        step = -(-len(self.hidden) // MOST_TOKENS)
        return Tokens(*(a[::step].astype(np.float64) for a in (self.hidden, self.logits)))


def fit_row(finds: Tokens, passes: Tokens, top_k: int, *, keep: float, margin: float) -> Array:
    """Return the row (H,) of a new expert that tokens of `finds` choose, and of `passes` do not.

    A logistic regression without a constant: with h a hidden state, w the row, m(h) the highest
    and c(h) the k-th highest logit of the other experts, it minimises

        mean over finds of log(1 + exp(m(h) - h·w))
        + keep × mean over passes of log(1 + exp(h·w - c(h) + margin)) + RIDGE / 2 × |w|²

    by Newton's method, a step halved until it lowers the sum. So a token of `finds` gives the
    expert the greatest weight, and one of `passes` does not even choose it.
    """
    finds, passes = finds.fewer(), passes.fewer()
    top = np.sort(passes.logits, axis=1)[:, -top_k]  # (T,)
    x = np.concatenate([finds.hidden, passes.hidden])  # (T, H)
    offset = np.concatenate([finds.logits.max(axis=1), top - margin])
    sign = np.concatenate([np.ones(len(finds.hidden)), -np.ones(len(passes.hidden))])
    share = np.where(sign > 0, 1 / len(finds.hidden), keep / len(passes.hidden))
    row: Array = np.zeros(x.shape[1])
    loss = _loss(row, x, offset, sign, share)
    for _ in range(MOST_STEPS):
        row, before = _newton(row, x, offset, sign, share, loss), loss
        loss = _loss(row, x, offset, sign, share)
        if before - loss < _ENOUGH:
            break
    return row


def _loss(row: Array, x: Array, offset: Array, sign: Array, share: Array) -> float:
    wrong = np.logaddexp(0.0, -sign * (x @ row - offset))  # (T,)
    return float(share @ wrong + RIDGE / 2 * row @ row)


def _newton(row: Array, x: Array, offset: Array, sign: Array, share: Array, loss: float) -> Array:
    wrong = 0.5 * (1 - np.tanh(sign * (x @ row - offset) / 2))  # (T,): sigmoid(-z)
    gradient = -(x.T @ (share * sign * wrong)) + RIDGE * row
    curved = share * wrong * (1 - wrong)
    hessian = x.T @ (x * curved[:, None]) + RIDGE * np.eye(len(row))
    step = np.linalg.solve(hessian, gradient)
    for halvings in range(30):
        candidate: Array = row - step / 2**halvings
        if _loss(candidate, x, offset, sign, share) < loss:
            return candidate
    return row


def fit_union(tokens: Tokens, merged: tuple[int, ...]) -> Array:
    """Return the row (H,) that stands for the rows `merged` at once.

    Least squares: its logit should be log Σ exp of theirs, with which a softmax gives it what it
    gave them together. Each token counts by that probability, and a little besides, so that
    tokens of other experts keep it low, too.
    """
    tokens = tokens.fewer()
    logits, x = tokens.logits, tokens.hidden
    wanted = np.logaddexp.reduce(logits[:, list(merged)], axis=1)  # (T,)
    share = np.exp(wanted - np.logaddexp.reduce(logits, axis=1)) + 0.05
    hessian = x.T @ (x * share[:, None]) / len(x) + RIDGE * np.eye(x.shape[1])
    fitted: Array = np.linalg.solve(hessian, x.T @ (share * wanted) / len(x))
    return fitted
