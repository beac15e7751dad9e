"""Judges by quality: losses on the golden set, and outcomes that clients reported.

Three-valued as every verdict: an objection where the candidate is surely worse than the margin
allows, passed where it surely is not, and None between. The statistics are those of `paired`
(one look) and `sequential` (as many as one likes); what follows from a verdict is `canary`'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from moe_operator import paired, sequential
from moe_operator.paired import Paired
from moe_operator.sequential import Arm, Stratum
from moe_operator.verdict import Verdict

OBJECTION_ALPHA: Final = 0.005
"""How often a version just within its margin is taken back all the same, for each evidence."""

PASS_ALPHA: Final = 0.025
"""How often a version just beyond its margin passes all the same."""

_MARGIN_OF_NONE_PERCENT: Final = 1.0  # the scale of bounds where the margin itself is zero


@dataclass(frozen=True, slots=True)
class Compared:
    """Differences of sequences' mean losses, and both versions' means, in bits per token."""

    difference: Paired
    stable: float
    candidate: float


@dataclass(frozen=True, slots=True)
class GoldenResult:
    """What one evaluation found; `flipped_percent` of top-k choices fell otherwise."""

    all: Compared
    slices: Mapping[str, Compared]
    flipped_percent: float


def golden(
    result: GoldenResult, max_increase_percent: float, slices: Mapping[str, float] | None = None
) -> Verdict:
    """Judge a candidate by the golden set, all of it, and by the `slices` that have a margin.

    Margins are percent of stable's loss on the same sequences. Slices can only object, and share
    the level of one objection among them (Bonferroni), so that many slices raise no false alarms.
    """
    margins = slices or {}
    missing = sorted(margins.keys() - result.slices.keys())
    if missing:
        known = ", ".join(sorted(result.slices)) or "none"
        return Verdict(None, f"golden set: no slice {', '.join(missing)}; it has {known}")
    for name, percent in sorted(margins.items()):
        part = result.slices[name]
        lower, upper = _interval(part.difference, OBJECTION_ALPHA / len(margins))
        if lower > percent / 100 * part.stable:
            where = f"golden set, slice {name}"
            return Verdict(False, _golden_sentence(where, part, (lower, upper), result, percent))
    whole, margin = result.all, max_increase_percent / 100 * result.all.stable
    lower, upper = _interval(whole.difference, OBJECTION_ALPHA)
    passed = False if lower > margin else True if upper <= margin else None
    said = _golden_sentence("golden set", whole, (lower, upper), result, max_increase_percent)
    return Verdict(passed, said)


def outcomes(
    strata: Sequence[Stratum],
    max_increase_percent: float,
    min_sessions: int = sequential.MIN_SESSIONS,
    unit: str = "bits per token",
) -> Verdict:
    """Judge a candidate by what its sessions were worth against stable's, at any time, any often.

    The margin is percent of stable's mean; `min_sessions` of each arm under one weight are needed
    before that weight counts. Scores are given negated, with their own `unit`.
    """
    candidate = sum((s.candidate for s in strata), Arm())
    stable = sum((s.stable for s in strata), Arm())
    found = sequential.difference(strata, min_sessions)
    seen = f"{candidate.sessions} sessions against {stable.sessions} of stable"
    if found is None:
        return Verdict(None, f"outcomes: {seen}; {min_sessions} of each under one weight wanted")
    margin = sequential.absolute(max_increase_percent, strata)
    scale = margin or sequential.absolute(_MARGIN_OF_NONE_PERCENT, strata) or 1.0
    lower, _ = sequential.bounds(found, OBJECTION_ALPHA, scale)
    _, upper = sequential.bounds(found, PASS_ALPHA, scale)
    passed = False if lower > margin else True if upper <= margin else None
    numbers = _numbers(found.mean, (lower, upper), unit)
    limit = _limit(max_increase_percent, margin)
    return Verdict(passed, f"outcomes: {numbers} in {seen}; {limit}")


def _interval(difference: Paired, alpha: float) -> tuple[float, float]:
    """Return the lower bound at the level of objections, the upper one at that of passing."""
    return paired.bounds(difference, alpha)[0], paired.bounds(difference, PASS_ALPHA)[1]


def _golden_sentence(
    where: str,
    part: Compared,
    interval: tuple[float, float],
    result: GoldenResult,
    percent: float,
) -> str:
    numbers = _numbers(part.difference.mean, interval, "bits per token")
    flipped = f"{result.flipped_percent:.1f}% of top-k choices flipped"
    limit = _limit(percent, percent / 100 * part.stable)
    return f"{where}: {numbers} of {part.difference.n} sequences, {flipped}; {limit}"


def _numbers(mean: float, interval: tuple[float, float], unit: str) -> str:
    """Say `−0.131 bits per token (−0.150 … −0.112)`."""
    return f"{_signed(mean)} {unit} ({_signed(interval[0])} … {_signed(interval[1])})"


def _limit(percent: float, margin: float) -> str:
    return f"maxLossIncrease is {percent:g}% ({_signed(margin)})"


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")
