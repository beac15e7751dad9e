"""Judges a gate on trial: by what it would choose for live rows, and by requests of its sessions.

In the shadow of stable it scores rows that stable serves; whatever goes beyond a limit there is an
objection before any session sees it. Choosing otherwise is what a new gate is for, so limits are
wide unless they are set. Decides nothing about weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Final

from moe_core.rows import GateRow, GateVariant
from moe_operator.judgement import Finding
from moe_operator.router_report import LayerShadow, Shadow
from moe_operator.shares import lowest_beside, lowest_percent
from moe_operator.strategy import RoutingLimits
from moe_operator.verdict import (
    CHECKS,
    MIN_SESSIONS,
    Check,
    Evidence,
    Tier,
    Verdict,
)
from moe_operator.window import Window

_SERVICE: Final = frozenset({"errors", "requests", "latency", "tail", "overflow"})
# A choice that is certain has an entropy of 0, which single precision may put below.
_ROUNDING_BITS: Final = 1e-6


def degraded_more(seen: Evidence) -> Verdict:
    """Judge the weight that another function answered, in sessions on a gate's version.

    A session is one attempt, as for overflow.
    """
    limit = seen.limits.max_degraded_increase_percent
    sessions = seen.candidate.overflow_sessions, seen.stable.overflow_sessions
    candidate, stable = _lost_percent(seen.candidate), _lost_percent(seen.stable)
    compared = seen.enough and min(sessions) >= MIN_SESSIONS
    surely = lowest_beside(candidate, *sessions) if compared else 0.0
    return Verdict(
        surely - stable <= limit,
        f"in {sessions[0]} sessions {candidate:.1f}% of the gate's weight was degraded, against "
        f"{stable:.1f}% in {sessions[1]} of stable; maxDegradedIncreasePercent is {limit}",
    )


def _lost_percent(window: Window) -> float:
    return 100 * window.lost_mass / window.mass if window.mass > 0 else 0.0


CHECKS_OF_GATES: Final[tuple[Check, ...]] = (
    *(check for check in CHECKS if check.name in _SERVICE),
    Check(Tier.SERVICE, "degraded", degraded_more),
)


@dataclass(frozen=True, slots=True)
class Routing:
    """Candidate and stable beside each other on the same rows, layer by layer."""

    candidate: GateVariant
    stable: GateVariant
    layers: tuple[LayerShadow, ...]
    wanted: tuple[int, ...]  # layers that are to be seen
    limits: RoutingLimits

    @property
    def rows(self) -> int:
        """Rows seen of the layer of which the fewest were."""
        seen = {layer.layer: layer.rows for layer in self.layers}
        return min((seen.get(layer, 0) for layer in self.wanted), default=0)

    @property
    def enough(self) -> bool:
        return self.rows >= self.limits.min_rows


def routing(row: GateRow, shadows: Iterable[Shadow], limits: RoutingLimits) -> Routing | None:
    """Return what routers saw of the candidate beside stable; None where there is none."""
    if row.candidate is None:
        return None
    candidate, stable = row.candidate, row.stable
    same = (s for s in shadows if (s.sha256, s.base_sha256) == (candidate.sha256, stable.sha256))
    layers = _added(chain.from_iterable(shadow.layers for shadow in same))
    return Routing(candidate, stable, layers, row.layers, limits)


def _added(layers: Iterable[LayerShadow]) -> tuple[LayerShadow, ...]:
    """Add up what several routers saw of each layer."""
    sums: dict[int, LayerShadow] = {}
    for layer in layers:
        known = sums.get(layer.layer)
        sums[layer.layer] = layer if known is None else _plus(known, layer)
    return tuple(sums[number] for number in sorted(sums))


def _plus(one: LayerShadow, other: LayerShadow) -> LayerShadow:
    def pairs(a: Sequence[int], b: Sequence[int]) -> tuple[int, ...]:
        return tuple(x + y for x, y in zip(a, b, strict=True)) if a and b else tuple(a or b)

    return replace(
        one,
        rows=one.rows + other.rows,
        overlap=one.overlap + other.overlap,
        divergence=one.divergence + other.divergence,
        entropy=one.entropy + other.entropy,
        base_entropy=one.base_entropy + other.base_entropy,
        pairs=pairs(one.pairs, other.pairs),
        base_pairs=pairs(one.base_pairs, other.base_pairs),
        overflow_pairs=one.overflow_pairs + other.overflow_pairs,
        base_overflow_pairs=one.base_overflow_pairs + other.base_overflow_pairs,
    )


def routing_findings(seen: Routing, *, waited_for: bool) -> Iterator[Finding]:
    """Give what rows in the shadow say; `waited_for` before the candidate has weight."""
    told = f"{seen.rows} of {seen.limits.min_rows} rows of each layer seen in the shadow"
    passed = True if seen.enough or not waited_for else None
    yield Finding(Tier.SANITY, "shadow", Verdict(passed, told))
    layers = [layer for layer in seen.layers if layer.rows >= seen.limits.min_rows]
    if layers:
        yield Finding(Tier.SANITY, "load", _load_shift(seen, layers))
        yield Finding(Tier.SANITY, "entropy", _entropy(seen, layers))
        yield Finding(Tier.SANITY, "overlap", _overlap(seen, layers))
        yield Finding(Tier.SANITY, "divergence", _divergence(seen, layers))


def _load_shift(seen: Routing, layers: Sequence[LayerShadow]) -> Verdict:
    """Tokens that go to one expert, beyond those that stable sends there."""
    worst = max((_shift(seen, layer) for layer in layers), key=lambda shift: shift.surely)
    limit = seen.limits.max_load_shift_percent
    return Verdict(
        worst.surely <= limit,
        f"in layer {worst.layer} {worst.expert} would get {worst.candidate:.1f}% of tokens "
        f"against {worst.stable:.1f}% of stable; maxLoadShiftPercent is {limit}",
    )


@dataclass(frozen=True, slots=True)
class _Shift:
    layer: int
    expert: str
    candidate: float  # percent of tokens
    stable: float
    surely: float  # by how many percentage points it is more, at least


def _shift(seen: Routing, layer: LayerShadow) -> _Shift:
    """Return the expert of a layer that the candidate sends most beyond stable.

    Its share is taken at its lower bound, as if rows were independent. One that stable does not
    list may stand for what the candidate lists no more, as after a change of names: it is compared
    with the most loaded of those.
    """
    before = dict(zip(seen.stable.experts, layer.base_pairs, strict=False))
    gone = max((p for e, p in before.items() if e not in seen.candidate.experts), default=0)

    def shift(expert: str, pairs: int) -> _Shift:
        stable = 100 * before.get(expert, gone) / layer.rows
        surely = lowest_percent(pairs, layer.rows) - stable
        return _Shift(layer.layer, expert, 100 * pairs / layer.rows, stable, surely)

    found = [shift(e, p) for e, p in zip(seen.candidate.experts, layer.pairs, strict=False)]
    return max(found, key=lambda one: one.surely, default=_Shift(layer.layer, "none", 0, 0, 0))


def _entropy(seen: Routing, layers: Sequence[LayerShadow]) -> Verdict:
    limit = seen.limits.min_entropy_percent
    worst = min(layers, key=lambda layer: layer.entropy / max(layer.base_entropy, 1e-9))
    own, base = worst.entropy / worst.rows, worst.base_entropy / worst.rows
    return Verdict(
        own >= base * limit / 100 - _ROUNDING_BITS,
        f"entropy of the choice in layer {worst.layer} is {own:.2f} bits against {base:.2f} of "
        f"stable; minEntropyPercent is {limit}",
    )


def _overlap(seen: Routing, layers: Sequence[LayerShadow]) -> Verdict:
    limit = seen.limits.min_overlap_percent
    worst = min(layers, key=lambda layer: layer.overlap / layer.rows)
    share = 100 * worst.overlap / worst.rows
    return Verdict(
        share >= limit,
        f"{share:.1f}% of the chosen experts are those of stable in layer {worst.layer}; "
        f"minOverlapPercent is {limit}",
    )


def _divergence(seen: Routing, layers: Sequence[LayerShadow]) -> Verdict:
    limit = seen.limits.max_divergence_millibits
    worst = max(layers, key=lambda layer: layer.divergence / layer.rows)
    bits = worst.divergence / worst.rows
    said = "not set" if limit is None else str(limit)
    return Verdict(
        limit is None or 1000 * bits <= limit,
        f"the choice diverges by {bits:.3f} bits in layer {worst.layer}; "
        f"maxDivergenceMillibits is {said}",
    )


def loading(loaded: int, routers: int, trouble: str, late: bool) -> Verdict:
    """Judge whether routers have the artifact of a candidate, or its time for that is over."""
    said = f"{loaded} of {routers} routers have loaded it"
    if routers and loaded >= routers:
        return Verdict(True, said)
    said = f"{said}: {trouble}" if trouble else said
    return Verdict(False if routers and late else None, said)
