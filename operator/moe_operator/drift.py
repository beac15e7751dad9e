"""Judges how a gate's routing stands to its baseline and limits, in a window of live rows.

Three detectors: rows go to other experts than before (`Drifting`), to few of them (`Collapsed`),
or to more than they would take (`Overflowing`). An alarm is raised by what is sure, and ends when
what is likely is well below the limit, so that it does not come and go. A total function of sums.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from operator import add, sub
from statistics import NormalDist
from typing import Final

from moe_core.drift import Distance, Spread, distance, entropy_bits, spread
from moe_operator.drift_spec import DriftSpec, Place

# A window is this many pieces; the oldest goes when a new one is full.
_PIECES: Final = 8
# The chance that a bound is wrong at one look; it is shared by all places that are looked at.
_LEVEL: Final = 0.0005
# An alarm ends where the estimate is below this share of its limit; one of a lower limit, where it
# is a tenth of the way to 100% above.
_OVER: Final = 0.8


class Detector(StrEnum):
    """What is looked for; the names are those of the conditions."""

    DRIFTING = "Drifting"
    COLLAPSED = "Collapsed"
    OVERFLOWING = "Overflowing"


@dataclass(frozen=True, slots=True)
class Tally:
    """Rows of a place and their pairs by group of sessions and expert, (GROUPS · E,)."""

    rows: int
    pairs: array[int]
    overflow_pairs: int = 0

    def plus(self, other: Tally | None) -> Tally:
        return self._with(other, 1)

    def minus(self, other: Tally | None) -> Tally:
        return self._with(other, -1)

    def _with(self, other: Tally | None, sign: int) -> Tally:
        """Add what was counted by a list of as many experts; any other is left out."""
        if other is None or len(other.pairs) != len(self.pairs):
            return self
        pairs = array("q", map(add if sign > 0 else sub, self.pairs, other.pairs))
        overflow_pairs = self.overflow_pairs + sign * other.overflow_pairs
        return Tally(self.rows + sign * other.rows, pairs, overflow_pairs)


Tallies = Mapping[Place, Tally]


@dataclass(frozen=True, slots=True)
class Watched:
    """A version of a gate whose rows are looked at."""

    gate: str
    version: str
    sha256: str
    experts: tuple[str, ...]
    spec: DriftSpec

    @property
    def place(self) -> tuple[str, str]:
        return self.gate, self.sha256

    @property
    def baseline(self) -> Mapping[Place, Spread]:
        return self.spec.baselines.get(self.sha256, {})

    @property
    def detectors(self) -> Iterator[Detector]:
        """What can be looked for, given what there is to compare with."""
        if self.baseline:
            yield Detector.DRIFTING
        if self.spec.min_experts_percent is not None:
            yield Detector.COLLAPSED
        if self.spec.max_overflow_percent is not None:
            yield Detector.OVERFLOWING


@dataclass(frozen=True, slots=True)
class History:
    """What is remembered of one watched version, in memory only.

    `pieces` are full, the oldest first, `last` is being filled, `whole` is the sum of all of them.
    `whole_window` once so many rows were seen. `alarms` say why, `distances` how far each place is.
    """

    pieces: tuple[Tallies, ...] = ()
    last: Tallies = field(default_factory=dict)
    whole: Tallies = field(default_factory=dict)
    whole_window: bool = False
    alarms: Mapping[Detector, str] = field(default_factory=dict)
    distances: Mapping[Place, Distance] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        return _rows(self.whole)


def remember(history: History, came: Tallies, of: Watched) -> History:
    """Return the history with what came since, and what it says now."""
    pieces, last, whole = history.pieces, plus(history.last, came), plus(history.whole, came)
    if _rows(last) * _PIECES >= of.spec.window_rows:
        pieces, last = (*pieces, last), {}
    if len(pieces) > _PIECES:
        whole, pieces = _minus(whole, pieces[0]), pieces[1:]
    moved = replace(history, pieces=pieces, last=last, whole=whole)
    moved = replace(moved, whole_window=history.whole_window or moved.rows >= of.spec.window_rows)
    return _judged(moved, of)


def _judged(history: History, of: Watched) -> History:
    spreads = {
        place: found
        for place, tally in history.whole.items()
        if (found := spread(tally.pairs, len(of.experts))) is not None
    }
    z = NormalDist().inv_cdf(1 - _LEVEL / max(len(spreads), 1))
    distances = {
        place: distance(of.baseline[place], live, z)
        for place, live in spreads.items()
        if place in of.baseline and len(of.baseline[place].shares) == len(live.shares)
    }
    said = {
        Detector.DRIFTING: _drifting(history, distances, of.spec),
        Detector.COLLAPSED: _collapsed(history, spreads, of),
        Detector.OVERFLOWING: _overflowing(history, spreads, of.spec, z),
    }
    alarms = {detector: why for detector, why in said.items() if why}
    return replace(history, alarms=alarms, distances=distances)


def _drifting(history: History, distances: Mapping[Place, Distance], spec: DriftSpec) -> str:
    """Return why rows go to other experts than before; empty where that is not so."""
    if not distances:
        return history.alarms.get(Detector.DRIFTING, "")
    limit = spec.max_psi_percent / 100
    if Detector.DRIFTING in history.alarms:
        place = max(distances, key=lambda one: distances[one].likely)
        if distances[place].likely < _OVER * limit:
            return ""
    else:
        place = max(distances, key=lambda one: distances[one].least)
        if distances[place].least < limit:
            return ""
    return (
        f"{told(place, distances[place])} in the last {history.rows} rows of a layer; "
        f"maxPsiPercent is {spec.max_psi_percent}"
    )


def told(place: Place, seen: Distance) -> str:
    """Say how far a place is from its baseline: `layer 0 is at PSI 0.41 (0.02 by chance)`."""
    layer, context = place
    about = f" (context {context})" if context else ""
    return f"layer {layer}{about} is at PSI {seen.psi:.2f}, {seen.chance:.2f} of it by chance,"


def _collapsed(history: History, spreads: Mapping[Place, Spread], of: Watched) -> str:
    """Return why few experts are in use: 2 to the power of the load's entropy counts them.

    What a sample lacks of entropy by chance, (B − 1) / 2n nats (Miller 1955), is added.
    """
    limit, before = of.spec.min_experts_percent, Detector.COLLAPSED in history.alarms
    layers = {place[0]: found for place, found in spreads.items() if not place[1]}
    if limit is None or not layers:
        return history.alarms.get(Detector.COLLAPSED, "") if limit is not None else ""
    in_use = {
        layer: 100 * 2 ** (entropy_bits(found.shares) + _lacking(found)) / len(of.experts)
        for layer, found in layers.items()
    }
    layer = min(in_use, key=lambda one: in_use[one])
    if in_use[layer] >= (limit + (100 - limit) / 10 if before else limit):
        return ""
    return (
        f"by the entropy of its load layer {layer} uses {min(in_use[layer], 100):.0f}% of "
        f"{len(of.experts)} experts, in the last {history.rows} rows; "
        f"minExpertsInUsePercent is {limit}"
    )


def _lacking(found: Spread) -> float:
    used = sum(1 for share in found.shares if share)
    return (used - 1) / (2 * found.effective * math.log(2))


def _overflowing(
    history: History, spreads: Mapping[Place, Spread], spec: DriftSpec, z: float
) -> str:
    """Return why more than its experts would take goes to them; a share of the pairs of a layer."""
    limit, before = spec.max_overflow_percent, Detector.OVERFLOWING in history.alarms
    layers = {place: found for place, found in spreads.items() if not place[1]}
    if limit is None or not layers:
        return history.alarms.get(Detector.OVERFLOWING, "") if limit is not None else ""
    shares = {}
    for place, found in layers.items():
        tally = history.whole[place]
        share = min(tally.overflow_pairs / max(sum(tally.pairs), 1), 1.0)
        error = 0.0 if before else z * math.sqrt(share * (1 - share) / found.effective)
        shares[place] = share, share - error
    place = max(shares, key=lambda one: shares[one][1])
    share, least = shares[place]
    if 100 * least <= (limit * _OVER if before else limit):
        return ""
    return (
        f"{100 * share:.1f}% of the pairs of layer {place[0]} are beyond a capacity of 1.2, in the "
        f"last {history.rows} rows; maxOverflowPercent is {limit}"
    )


def plus(tallies: Tallies, others: Tallies) -> Tallies:
    """Return the sums."""
    return {**tallies, **{place: other.plus(tallies.get(place)) for place, other in others.items()}}


def _minus(tallies: Tallies, others: Tallies) -> Tallies:
    return {place: tally.minus(others.get(place)) for place, tally in tallies.items()}


def _rows(tallies: Tallies) -> int:
    return max((tally.rows for tally in tallies.values()), default=0)


def since(now: Tallies, before: Tallies) -> Tallies:
    """Return what was counted since a router's last report, in which it is the same process."""
    return _minus(now, before)


def summary(history: History, of: Watched) -> str:
    """Say how things are where nothing is wrong."""
    if not history.distances:
        return f"{history.rows} rows of a layer are within the limits"
    place = max(history.distances, key=lambda one: history.distances[one].likely)
    seen = f"{told(place, history.distances[place])} in the last {history.rows} rows"
    return f"{seen}; maxPsiPercent is {of.spec.max_psi_percent}"
