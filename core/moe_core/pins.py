"""Derives which version of an expert or a gate a session uses, from session and newest table.

Nothing is stored: any router, also one that was just started, gives the same answer. A session
keeps the version it began with through promotions and rising weights, because the weight that
counts is that of the epoch in which it began; only a version that is revoked or gone moves it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import overload

from moe_core.rollout import Version, WeightSince
from moe_core.rows import ExpertRow, GateRow, GateVariant

_BUCKETS = 10_000


def bucket(salt: str, session: str) -> int:
    """Return where a session stands in a rollout: 0 … 9,999, uniform over sessions.

    SHA-256 of salt and session, so that neither clients nor other rollouts correlate with it.
    """
    digest = hashlib.sha256(f"{salt}\0{session}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % _BUCKETS


def weight_since(weights: Sequence[WeightSince], epoch: int) -> WeightSince | None:
    """Return the entry in force at an epoch; None before the first one."""
    return next((w for w in reversed(weights) if w.epoch <= epoch), None)


def weight_at(weights: Sequence[WeightSince], epoch: int) -> int:
    """Return the percent in force at an epoch; 0 before the first entry."""
    since = weight_since(weights, epoch)
    return 0 if since is None else since.percent


@overload
def pinned(row: GateRow, session: str, began: int) -> GateVariant: ...
@overload
def pinned(row: ExpertRow, session: str, began: int) -> Version | None: ...
def pinned(row: ExpertRow | GateRow, session: str, began: int) -> Version | None:
    """Return the version of an expert or a gate for a session that began in epoch `began`.

    None where the expert has no stable version yet. A rollout's contender is the candidate, or,
    after its promotion, the stable version for as long as the previous one is kept.
    """
    if row.rollout is None:
        return row.stable
    contender: Version | None
    base: Version | None
    if row.candidate is not None:
        contender, base = row.candidate, row.stable
    elif row.previous is not None:
        contender, base = row.stable, row.previous
    else:
        return row.stable
    below = weight_at(row.rollout.weights, began) * _BUCKETS // 100
    chosen = contender if bucket(row.rollout.salt, session) < below else base
    if chosen is None or chosen.sha256 in row.revoked:
        return row.stable
    return chosen
