"""Tables in which a version of a gate is tried out, beside another one with other experts.

Stable chooses two of a, b and c; the candidate knows b, a and d, in this order, and chooses one.
"""

from __future__ import annotations

from dataclasses import replace

from moe_core.pins import bucket
from moe_core.policy import Policy
from moe_core.rollout import Outcome, Rollout, Version, WeightSince
from moe_core.rows import GateRow, GateVariant
from moe_core.table import Table
from tests.support.tables import expert, gate, table, version

SALT = "gate-salt"
G1, G2 = version("gate-v1"), version("gate-v2")
EXPERTS = {name: version(f"{name}-v1") for name in ("a", "b", "c", "d")}
STABLE = GateVariant(G1.version, G1.sha256, G1.uri, ("a", "b", "c"), Policy(2))
CANDIDATE = GateVariant(G2.version, G2.sha256, G2.uri, ("b", "a", "d"), Policy(1))


def session_on(candidate: bool, number: int = 0) -> str:
    """Return a session that is on this side at 50%; each number has its own."""
    found = [n for n in (f"s{i}" for i in range(200)) if (bucket(SALT, n) < 5_000) is candidate]
    return found[number]


def trial(*weights: tuple[int, int], shadow_percent: int = 0, target: Version = G2) -> Rollout:
    return Rollout(
        revision=2,
        target=target,
        step=1,
        step_began="2026-01-01T00:00:00Z",
        outcome=Outcome.PROGRESSING,
        reason="",
        salt=SALT,
        weights=tuple(WeightSince(epoch, percent) for epoch, percent in weights),
        shadow_percent=shadow_percent,
    )


def tried(
    *weights: tuple[int, int],
    shadow_percent: int = 0,
    stable: GateVariant = STABLE,
    candidate: GateVariant = CANDIDATE,
) -> GateRow:
    """Return the row of a gate whose candidate has had these (epoch, percent); 50% if none."""
    rollout = trial(*(weights or ((1, 50),)), shadow_percent=shadow_percent, target=candidate)
    plain = Version(rollout.target.version, rollout.target.sha256, rollout.target.uri)
    row = replace(gate(stable.experts), stable=stable, candidate=candidate)
    return replace(row, rollout=replace(rollout, target=plain))


def promoted(*, kept: bool) -> GateRow:
    """Return the row after the candidate's promotion in epoch 2."""
    row = tried((1, 50), (2, 100))
    assert row.rollout is not None
    rollout = replace(row.rollout, outcome=Outcome.PROMOTED)
    previous = STABLE if kept else None
    return replace(row, stable=CANDIDATE, candidate=None, previous=previous, rollout=rollout)


def taken_back() -> GateRow:
    """Return the row after the candidate was taken back in epoch 2."""
    row = tried((1, 50), (2, 0))
    assert row.rollout is not None
    rollout = replace(row.rollout, outcome=Outcome.ROLLED_BACK)
    return replace(row, candidate=None, revoked=(G2.sha256,), rollout=rollout)


def gated(row: GateRow, epoch: int = 1) -> Table:
    """Return a table of four experts and this gate, in float32 and 4 wide."""
    rows = [expert(name, stable) for name, stable in EXPERTS.items()]
    return table(rows, [row], hidden_size=4, dtype="Float32", epoch=epoch)
